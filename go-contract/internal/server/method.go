package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip" // the Python sidecar takes it too
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	anomaly "dwcp.internal/anomaly"
)

// call is one unary call with all the memory that it needs. It goes back to where it came from when its answer is encoded: it is an
// encoder, or has the methods message and release of the codec.
type call interface {
	decoder
	// run answers it with one model set. An error is an *anomaly.Error, a notFound or a status.
	run(ctx context.Context, s *service, l *live) error
	release()
}

// service is what answers calls.
type service struct {
	// live is the model set in use. An answer loads it once (rule R2).
	live     atomic.Pointer[live]
	settings Settings
	log      *slog.Logger
	metrics  *metrics
	inFlight atomic.Int64
	streams  streams
	// draining says that the server is stopping (rule L7).
	draining atomic.Bool
	reloader *reloader
	// certificates is nil without TLS.
	certificates *certificates
	// closed says whether only those who may ask for a reload can call at all (rule R6).
	closed bool
	health *health.Server
}

func newService(scorer served, settings Settings, log *slog.Logger) *service {
	s := &service{settings: settings, log: log, health: health.NewServer()}
	s.streams.all = map[*stream]struct{}{}
	s.metrics = newMetrics(state{s})
	if settings.Feedback != "" {
		s.metrics.registry.MustRegister(&feedbackFile{path: settings.Feedback, log: log})
	}
	l := newLive(scorer, s.metrics, settings.driftWindow())
	s.use(l)
	s.reloader = &reloader{
		folder: settings.Models, log: log, open: s.opener(), id: func() string { return s.live.Load().id }, swap: s.swap, metrics: s.metrics,
	}
	return s
}

// use puts what answers into use.
func (s *service) use(l *live) {
	if l.fleet != nil { // a set that is refused is logged and counted as in rule R3 (FL4)
		l.fleet.all.OnRefused(func(id string, refusal *anomaly.Error) {
			s.metrics.refusedSets.WithLabelValues(refusal.Code.String()).Inc()
			s.log.Error("model set of the fleet refused", "model_set_id", id, "code", refusal.Code.String(), "file", refusal.Field,
				"reason", refusal.Message)
		})
	}
	s.live.Store(l)
	s.tellHealth(l)
}

// tellHealth says in health what can be scored with a model set.
func (s *service) tellHealth(l *live) {
	for _, name := range []string{"", fullName} {
		s.health.SetServingStatus(name, grpc_health_v1.HealthCheckResponse_SERVING)
	}
	for _, d := range anomaly.Detectors() {
		state := grpc_health_v1.HealthCheckResponse_NOT_SERVING
		if l.model(d) != nil || l.fleet != nil { // what the sets of a fleet have is known when they are open

			state = grpc_health_v1.HealthCheckResponse_SERVING
		}
		s.health.SetServingStatus(HealthName(d), state)
	}
}

// errStopping refuses calls of a server that is told to stop (rule L7).
var errStopping = status.Error(codes.Unavailable, "the server is stopping")

// serve is the way of every unary call: limit, deadline, decode, run, count. It is the one place where an error, or a bug, becomes an
// answer.
func (s *service) serve(ctx context.Context, m *method, counts *methodCounts, decode func(any) error) (answer any, err error) {
	begin, taken := time.Now(), true
	defer func() {
		if bug := recover(); bug != nil {
			answer, err = nil, s.bug(ctx, m.name, bug)
		}
		counts.answered(status.Code(err))
		if taken {
			counts.took(begin)
		}
	}()
	if s.draining.Load() && !m.always {
		taken = false
		return nil, errStopping
	}
	if m.limited {
		defer s.inFlight.Add(-1)
		if s.inFlight.Add(1) > int64(s.settings.MaxInFlight) {
			taken = false
			return nil, s.full()
		}
	}
	if err := ctx.Err(); err != nil { // nobody reads that answer (rule L6)
		return nil, status.FromContextError(err).Err()
	}
	c := m.call()
	if err := decode(c); err != nil {
		c.release()
		return nil, s.refuse(ctx, m.name, malformed())
	}
	if err := c.run(ctx, s, s.live.Load()); err != nil {
		c.release()
		return nil, s.refuse(ctx, m.name, err)
	}
	return c, nil
}

// malformed refuses bytes that are no message.
func malformed() error {
	return &anomaly.Error{Code: anomaly.CodeInvalidRequest, Message: errMalformed.Error()}
}

func invalid(field, format string, args ...any) error {
	return &anomaly.Error{Code: anomaly.CodeInvalidRequest, Field: field, Message: fmt.Sprintf(format, args...)}
}

// notFound is an error that is NOT_FOUND whatever its code (rule O1).
type notFound struct{ refusal *anomaly.Error }

func (e notFound) Error() string { return e.refusal.Error() }

func (e notFound) Unwrap() error { return e.refusal }

// refuse makes the status of a refusal (rule E4). What is INTERNAL is said in the log, not to the caller. A status stays what it is.
func (s *service) refuse(ctx context.Context, name string, err error) error {
	if _, ok := err.(interface{ GRPCStatus() *status.Status }); ok {
		return err
	}
	var missing notFound
	if errors.As(err, &missing) {
		s.metrics.refusals.WithLabelValues(missing.refusal.Code.String()).Inc()
		st := anomaly.ToStatus(missing.refusal).Proto()
		st.Code = int32(codes.NotFound)
		return status.FromProto(st).Err()
	}
	refusal := anomaly.AsError(err)
	if refusal.Code == anomaly.CodeInternal {
		if ctx.Err() != nil {
			return status.FromContextError(ctx.Err()).Err()
		}
		s.log.Error(name+" failed", "error", err)
		refusal = &anomaly.Error{Code: anomaly.CodeInternal, Message: "the server failed on this request; its log says why"}
	}
	s.metrics.refusals.WithLabelValues(refusal.Code.String()).Inc()
	return anomaly.ToStatus(refusal).Err()
}

// bug makes the status of a panic.
func (s *service) bug(ctx context.Context, name string, bug any) error {
	return s.refuse(ctx, name, fmt.Errorf("panic: %v\n%s", bug, debug.Stack()))
}

func (s *service) full() error {
	return status.Errorf(codes.ResourceExhausted, "%d requests are in flight already; try again later", s.settings.MaxInFlight)
}

// tap refuses a call before its request is read when it would be refused anyway.
func (s *service) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	full, noStream := s.inFlight.Load() >= int64(s.settings.MaxInFlight), s.streams.open.Load() >= int64(s.settings.MaxStreams)
	draining := s.draining.Load()
	if !full && !noStream && !draining {
		return ctx, nil
	}
	m, known := methodAt[info.FullMethodName]
	var err error
	switch {
	case !known || m.always:
	case draining:
		err = errStopping
	case noStream && m.call == nil:
		err = s.tooManyStreams()
	case full && m.limited:
		err = s.full()
	}
	if err != nil {
		s.metrics.methods[m.name].answered(status.Code(err))
	}
	return ctx, err
}
