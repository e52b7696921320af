package server

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	anomaly "dwcp.internal/anomaly"
)

// streams are the open streams of the process.
type streams struct {
	open  atomic.Int64
	mutex sync.Mutex
	all   map[*stream]struct{}
}

// each calls do for every open stream.
func (s *streams) each(do func(*stream)) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for st := range s.all {
		do(st)
	}
}

// phase is what a stream is at.
type phase int

const (
	receiving phase = iota
	computing
	sending
	// ended: its status is written, or about to be.
	ended
)

// stream is one call of ScoreStream: what it remembers from one request to the next. It is the memory that gRPC decodes into and
// encodes from, with the help of a turn, so that a stream that waits holds nothing but its windows.
type stream struct {
	service *service
	writeStatus
	scorings

	mutex sync.Mutex
	// What follows is guarded by mutex. why is the status of a stream that is ended.
	phase phase
	moved time.Time
	why   error
	idle  *time.Timer
	// wanted is the set that the stream was opened for; empty for any.
	wanted string

	turn *turn
	// begun says whether settings have come; malformed, that the last request was no message.
	begun, malformed bool
}

// writeStatus ends a call from outside of its handler, whatever that waits for. It is the method with which gRPC writes what a handler
// returns; what comes later is ignored.
type writeStatus interface {
	WriteStatus(st *status.Status) error
}

// scoreStream is a call of ScoreStream, from its begin to its end.
func (s *service) scoreStream(call grpc.ServerStream) (err error) {
	const name = "ScoreStream"
	counts := s.metrics.methods[name]
	defer func() {
		if bug := recover(); bug != nil {
			err = s.bug(call.Context(), name, bug)
		}
		counts.answered(status.Code(err))
	}()
	defer s.streams.open.Add(-1)
	if s.streams.open.Add(1) > int64(s.settings.MaxStreams) {
		return s.tooManyStreams()
	}
	st := &stream{service: s, scorings: scorings{
		series: map[string]*window{}, maxSeries: s.settings.MaxSeries, refusals: s.metrics.refusals,
	}}
	// An assertion, because the method is not part of the interface that gRPC promises. Were it gone, every test of streams would fail.
	st.writeStatus = grpc.ServerTransportStreamFromContext(call.Context()).(writeStatus)
	st.open()
	defer st.close()
	for {
		if err := st.wait(); err != nil {
			return s.refuse(call.Context(), name, err)
		}
		if err := call.RecvMsg(st); err != nil {
			if errors.Is(err, io.EOF) { // the client has no more requests
				return nil
			}
			return st.reason(err)
		}
		begin := time.Now()
		if !st.enter(computing, begin) {
			return st.reason(nil)
		}
		if err := st.answer(call.Context()); err != nil {
			return s.refuse(call.Context(), name, err)
		}
		if !st.enter(sending, begin) {
			return st.reason(nil)
		}
		if err := call.SendMsg(st); err != nil {
			return st.reason(err)
		}
		counts.took(begin)
	}
}

// decode reads a request. What is no message is told by answer: an error here would be a status of gRPC's own.
func (st *stream) decode(b []byte) error {
	st.turn = turns.Get().(*turn)
	st.malformed = st.turn.decode(b) != nil
	return nil
}

// answer computes the answer to a request with one model set.
func (st *stream) answer(ctx context.Context) error {
	if err := ctx.Err(); err != nil { // nobody reads that answer (rule L6)
		return status.FromContextError(err).Err()
	}
	if st.malformed {
		return malformed()
	}
	request, l := &st.turn.streamRequest, st.service.live.Load()
	if request.hasSettings == st.begun { // rule ST1
		if st.begun {
			return invalid("settings", "settings come with the first request alone; open another stream for others")
		}
		return invalid("settings", "the first request has no settings; say which detectors are to score")
	}
	if st.begun {
		if err := st.pinned(l); err != nil {
			return err
		}
	} else if err := st.begin(ctx, request.settings, l); err != nil {
		return err
	}
	if err := request.check(); err != nil {
		return err
	}
	return st.score(ctx, l, st.turn)
}

// begin takes over the settings.
func (st *stream) begin(ctx context.Context, settings streamSettings, l *live) error {
	if err := settings.check(ctx, l); err != nil {
		return err
	}
	settings.detectors = slices.Clone(settings.detectors) // they are the turn's
	st.settings, st.begun = settings, true
	st.mutex.Lock()
	defer st.mutex.Unlock()
	st.wanted = settings.modelSetID
	return nil
}

// encode gives the answer away, and the memory of the turn back.
func (st *stream) encode() mem.BufferSlice {
	answer := st.turn.out.take()
	st.turn.release()
	st.turn = nil
	return answer
}

// open makes the stream one of the open ones.
func (st *stream) open() {
	now, idle := time.Now(), st.service.settings.StreamIdle
	st.mutex.Lock()
	st.moved = now
	st.idle = time.AfterFunc(idle, st.checkIdle)
	st.mutex.Unlock()
	s := &st.service.streams
	s.mutex.Lock()
	s.all[st] = struct{}{}
	s.mutex.Unlock()
}

// close takes the stream out of the open ones.
func (st *stream) close() {
	s := &st.service.streams
	s.mutex.Lock()
	delete(s.all, st)
	s.mutex.Unlock()
	st.mutex.Lock()
	st.phase = ended
	st.idle.Stop()
	st.mutex.Unlock()
	if st.turn != nil {
		st.turn.release()
	}
}

// enter goes on to a phase; false for a stream that was ended.
func (st *stream) enter(next phase, now time.Time) bool {
	st.mutex.Lock()
	defer st.mutex.Unlock()
	if st.phase == ended {
		return false
	}
	st.phase, st.moved = next, now
	return true
}

// wait goes on to receiving, unless there is a reason to end the stream. Whoever makes such a reason ends streams that receive already.
func (st *stream) wait() error {
	if !st.enter(receiving, time.Now()) {
		return st.reason(nil)
	}
	if st.service.draining.Load() {
		return errStopping
	}
	return st.pinned(st.service.live.Load())
}

// end ends the stream from outside when it is at one of these phases. Answers that are being computed are still sent.
func (st *stream) end(why error, at ...phase) bool {
	st.mutex.Lock()
	defer st.mutex.Unlock()
	for _, phase := range at {
		if st.phase == phase {
			st.phase, st.why = ended, why
			_ = st.WriteStatus(status.Convert(why)) // fails when the connection is gone, and with it the stream
			return true
		}
	}
	return false
}

// reason is why the stream was ended, or else err.
func (st *stream) reason(err error) error {
	st.mutex.Lock()
	defer st.mutex.Unlock()
	if st.why != nil {
		return st.why
	}
	return err
}

var errIdle = status.Error(codes.Canceled, "nothing moved on the stream for too long; open another one")

// checkIdle ends the stream when nothing moved for too long, else looks again when that may be (rule L5).
func (st *stream) checkIdle() {
	limit := st.service.settings.StreamIdle
	st.mutex.Lock()
	left := limit - time.Since(st.moved)
	if st.phase == computing {
		left = limit
	}
	if st.phase != ended && left > 0 {
		st.idle.Reset(left)
	}
	st.mutex.Unlock()
	if left <= 0 {
		st.end(errIdle, receiving, sending)
	}
}

func (s *service) tooManyStreams() error {
	return status.Errorf(codes.ResourceExhausted, "%d streams are open already; try again later", s.settings.MaxStreams)
}

// pinned refuses another set than the one that the stream was opened for (rule ST6).
func (st *stream) pinned(l *live) error {
	st.mutex.Lock()
	wanted := st.wanted
	st.mutex.Unlock()
	if wanted == "" || wanted == l.id {
		return nil
	}
	return &anomaly.Error{
		Code: anomaly.CodeModelSetMismatch, Field: "settings.model_set_id",
		Message: "the stream wants " + wanted + "; in use is " + l.id,
	}
}
