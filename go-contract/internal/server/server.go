package server

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	anomaly "dwcp.internal/anomaly"
)

// MaxMessageBytes is the largest gRPC message (rule L1): the largest batch (rule W4) and room for its other fields. A batch that is a
// little too large still reaches the check that answers BATCH_TOO_LARGE.
const MaxMessageBytes = anomaly.MaxBatchBytes + 1<<20

const fullName = "dwcp.anomaly.v1.ScoringService"

// HealthName is the name of a detector in grpc.health.v1. Every detector of the contract has one: SERVING when the model set can score
// it, else NOT_SERVING. At a fleet all are SERVING: series differ in what their sets have. The empty name and the service's name stand for the server as a whole.
func HealthName(d anomaly.Detector) string { return fullName + "/" + d.String() }

// Server answers calls with one model set, or one fleet, at a time.
type Server struct {
	// Addresses are what clients may pass to gRPC, `127.0.0.1:50051` or `unix:/run/dwcp.sock`; filled by Start.
	Addresses []string
	// MetricsAddress is where Prometheus finds /metrics, empty for nowhere; filled by Start.
	MetricsAddress string

	settings Settings
	grpc     *grpc.Server
	service  *service
	// metrics is nil when nobody asked for it.
	metrics *http.Server
	// listeners are those of gRPC; filled by Start.
	listeners []net.Listener
	// stopWatching ends what runs beside the calls.
	stopWatching context.CancelFunc
}

// options are those of gRPC. Measured with BenchmarkUnaryScore at 64 calls, as CPU time of the server for each: waiting workers save
// a sixth (every new goroutine grows its stack anew), shared write buffers a tenth of the rest; static windows and larger buffers
// save nothing. An open stream keeps a worker to itself, so there are more of them than calls run at a time; 320 take 3 MB more than 64.
func options(s *service) []grpc.ServerOption {
	list := []grpc.ServerOption{
		grpc.ForceServerCodecV2(newCodec()),
		grpc.InTapHandle(s.tap),
		grpc.MaxRecvMsgSize(MaxMessageBytes),
		grpc.MaxSendMsgSize(MaxMessageBytes),
		grpc.MaxConcurrentStreams(uint32(unaryPerConnection + s.settings.MaxStreams)),
		grpc.ConnectionTimeout(5 * time.Second), // who says nothing for so long would hold up the end
		grpc.SharedWriteBuffer(true),
		grpc.NumStreamWorkers(192),
	}
	if s.certificates != nil {
		list = append(list, grpc.Creds(s.certificates.transport()))
	}
	return list
}

// unaryPerConnection is the number of unary calls that one connection may have open; a client waits with further ones. Streams come on
// top: one too many of them has to reach the server to be refused (rule L3).
const unaryPerConnection = 256

// New makes a server that listens nowhere yet, for one model set. What goes wrong inside a call is written to log.
func New(scorer anomaly.Scorer, settings Settings, log *slog.Logger) (*Server, error) {
	return newServer(scorer, lookAt(settings.Models), settings, log)
}

// NewFleet is New for a fleet.
func NewFleet(fleet *anomaly.Fleet, settings Settings, log *slog.Logger) (*Server, error) {
	return newServer(fleet, lookAt(settings.Models), settings, log)
}

// newServer is New with the look of the folder before the scorer was opened: what changed since is seen by the watcher.
func newServer(scorer served, seen look, settings Settings, log *slog.Logger) (*Server, error) {
	if err := settings.check(); err != nil {
		return nil, err
	}
	answers := newService(scorer, settings, log)
	answers.reloader.seen = seen
	if settings.TLS.Cert != "" {
		var err error
		if answers.certificates, err = openCertificates(settings.TLS, log, answers.metrics.certificateReloads); err != nil {
			return nil, err
		}
	}
	s := &Server{settings: settings, grpc: grpc.NewServer(options(answers)...), service: answers, stopWatching: func() {}}
	answers.register(s.grpc)
	grpc_health_v1.RegisterHealthServer(s.grpc, answers.health)
	if settings.reflection() {
		reflection.Register(s.grpc)
	}
	return s, nil
}

// Start binds all addresses, then answers calls. When an address cannot be had, nothing listens.
func (s *Server) Start() error {
	var listeners []net.Listener
	var addresses []string
	for _, bind := range []struct {
		to     string
		listen func(string) (net.Listener, string, error)
	}{{s.settings.Listen, listenTCP}, {s.settings.Unix, listenUnix}, {s.settings.Metrics, listenMetrics}} {
		if bind.to == "" {
			continue
		}
		listener, address, err := bind.listen(bind.to)
		if err != nil {
			for _, other := range listeners {
				other.Close()
			}
			return err
		}
		listeners, addresses = append(listeners, listener), append(addresses, address)
	}
	if s.settings.Metrics != "" {
		last := len(listeners) - 1
		page := listeners[last]
		s.MetricsAddress, listeners, addresses = addresses[last], listeners[:last], addresses[:last]
		s.metrics = &http.Server{Handler: s.service.metrics.handler(), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
		go func() { _ = s.metrics.Serve(page) }() // ends when the server stops
	}
	s.Addresses = addresses
	var bound []net.Addr
	for _, listener := range listeners {
		bound = append(bound, listener.Addr())
	}
	s.service.closed = s.settings.onlyTrusted(bound)
	s.listeners = listeners
	for _, listener := range listeners {
		go func() { _ = s.grpc.Serve(listener) }() // ends when the server stops
	}
	if s.settings.Watch > 0 {
		var ctx context.Context
		ctx, s.stopWatching = context.WithCancel(context.Background())
		go s.service.reloader.watch(ctx, s.settings.Watch)
	}
	return nil
}

// Stop refuses new calls, ends streams after the answer that they compute, and waits until calls in flight are finished, or ends them
// when ctx is done. Health becomes NOT_SERVING first (rule L7).
func (s *Server) Stop(ctx context.Context) {
	s.stopWatching()
	s.service.health.Shutdown()
	s.service.draining.Store(true)
	s.service.streams.each(func(st *stream) { st.end(errStopping, receiving) })
	defer func() {
		for _, listener := range s.listeners { // a server that is told to stop at once has not begun with some; a unix socket is removed here
			_ = listener.Close()
		}
	}()
	finished := make(chan struct{})
	go func() {
		s.grpc.GracefulStop()
		close(finished)
	}()
	if s.metrics != nil {
		defer s.metrics.Close() // it can be read until the end
	}
	select {
	case <-finished:
		return
	case <-ctx.Done():
	}
	go s.grpc.Stop()
	select {
	case <-finished:
	case <-time.After(time.Second): // a scorer that does not look at its context is no reason to stay
	}
}
