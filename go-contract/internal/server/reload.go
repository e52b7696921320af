package server

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	anomaly "dwcp.internal/anomaly"
	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// reloader opens what the model folder holds and puts it in the place of the live set (rules R1 to R6).
type reloader struct {
	folder string
	log    *slog.Logger
	// open opens a folder as rule A5 says.
	open func(folder string) (served, error)
	// id is that of the live set; swap replaces it.
	id   func() string
	swap func(served)
	// reloads and refused count.
	metrics *metrics

	// one lets one reload run at a time.
	one sync.Mutex
	// seen is what the folder looked like when it was opened the last time; guarded by one.
	seen look

	// waiting is the reload that has not looked at the folder yet; guarded by mutex.
	mutex   sync.Mutex
	waiting *reload
}

// reload is one reload and what it led to. The outcome can be read when done is closed.
type reload struct {
	done    chan struct{}
	id      string
	changed bool
	err     error
}

// join gives a reload that looks at the folder after this moment. All who ask before it looks share it (rule R5).
func (r *reloader) join() *reload {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.waiting == nil {
		next := &reload{done: make(chan struct{})}
		r.waiting = next
		go func() {
			defer close(next.done)
			r.one.Lock()
			defer r.one.Unlock()
			r.mutex.Lock()
			r.waiting = nil
			r.mutex.Unlock()
			next.changed, next.err = r.run()
			next.id = r.id()
		}()
	}
	return r.waiting
}

// run opens the folder's set and swaps when it is another one. A set that is refused leaves everything as it is (rule R3).
func (r *reloader) run() (changed bool, err error) {
	r.seen = lookAt(r.folder) // before it is opened: what changes meanwhile is seen by the next look
	defer func() {
		if bug := recover(); bug != nil {
			err = fmt.Errorf("panic: %v\n%s", bug, debug.Stack())
		}
		result := unchanged
		switch {
		case err != nil:
			result = refused
			refusal := anomaly.AsError(err)
			r.metrics.refusedSets.WithLabelValues(refusal.Code.String()).Inc()
			r.log.Error("model set refused; the one in use stays", "folder", r.folder, "code", refusal.Code.String(), "file", refusal.Field,
				"reason", refusal.Message, "model_set_id", r.id())
		case changed:
			result = swapped
			r.log.Info("model set swapped", "model_set_id", r.id())
		}
		r.metrics.reloads.WithLabelValues(result).Inc()
		debug.FreeOSMemory() // the set that is not in use any more goes now, and not at some later collection
	}()
	scorer, err := r.open(r.folder)
	if err != nil {
		return false, err
	}
	if changed = scorer.ID() != r.id(); changed {
		r.swap(scorer)
	}
	return changed, nil
}

// watch looks at the folder every so often until ctx is done. A folder that changed is opened when it looks the same twice, so that a
// set is not judged while it is being copied, and only once (rules R1, R3).
func (r *reloader) watch(ctx context.Context, every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	var before look
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		var ripe bool
		if before, ripe = r.ripe(before); ripe {
			select {
			case <-r.join().done:
			case <-ctx.Done():
				return
			}
		}
	}
}

// ripe looks at the folder, and says whether it is another one than was opened the last time and looks as it did before.
func (r *reloader) ripe(before look) (now look, ripe bool) {
	now = lookAt(r.folder)
	r.one.Lock()
	defer r.one.Unlock()
	return now, now != r.seen && now == before
}

// openServed opens the model set or the fleet in a folder, with the native backend. With keys, one of them must have signed a set (rule
// A8).
func openServed(folder string, settings Settings) (served, error) {
	defer debug.FreeOSMemory() // opening takes some times the memory of the set
	var options []anomaly.Option
	if len(settings.PublicKeys) > 0 {
		options = append(options, anomaly.WithPublicKeys(settings.PublicKeys...))
	}
	if anomaly.IsFleet(folder) {
		all, err := anomaly.OpenFleet(folder, append(options, anomaly.WithMaxSets(cmp.Or(settings.MaxSets, anomaly.DefaultMaxSets)))...)
		if err != nil {
			return nil, err // not all: a nil pointer would be no nil
		}
		return all, nil
	}
	set, err := anomaly.OpenModelSet(folder, options...)
	if err != nil {
		return nil, err
	}
	return set, nil
}

// opener gives what opens a folder anew. A fleet keeps the sets that are open (rule FL7).
func (s *service) opener() func(folder string) (served, error) {
	return func(folder string) (served, error) {
		l := s.live.Load()
		if l.fleet == nil || !anomaly.IsFleet(folder) {
			return openServed(folder, s.settings)
		}
		next, err := l.fleet.all.Reopen(folder)
		if err != nil {
			return nil, err
		}
		return next, nil
	}
}

// swap puts a scorer or a fleet in the place of the live one.
func (s *service) swap(next served) {
	former := s.live.Load()
	l := newLive(next, s.metrics, s.settings.driftWindow())
	s.use(l)
	if l.fleet != nil && former.fleet != nil {
		l.fleet.all.TakeOver(former.fleet.all)
	}
	s.streams.each(func(st *stream) {
		if err := st.pinned(l); err != nil && st.end(anomaly.ToStatus(anomaly.AsError(err)).Err(), receiving) {
			s.metrics.refusals.WithLabelValues(anomaly.CodeModelSetMismatch.String()).Inc()
		}
	})
}

// reloadCall is a call of OperationsService.Reload.
type reloadCall struct {
	answer anomalyv1.ReloadResponse
}

func (c *reloadCall) decode(b []byte) error  { return decodeNothing(b) }
func (c *reloadCall) message() proto.Message { return &c.answer }
func (c *reloadCall) release()               {}

func (c *reloadCall) run(ctx context.Context, s *service, _ *live) error {
	if !s.closed {
		return status.Error(codes.PermissionDenied,
			"the server listens beyond this machine without client certificates; give it a new set through its folder, or use mutual TLS")
	}
	r := s.reloader.join()
	select {
	case <-r.done:
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
	if r.err != nil {
		refusal := anomaly.AsError(r.err)
		if refusal.Code == anomaly.CodeInternal {
			return r.err
		}
		// The reason may quote the folder; the log has it.
		return &anomaly.Error{Code: refusal.Code, Field: refusal.Field, Message: "the model set is refused; the server's log says why. " + refusal.Code.Remedy()}
	}
	c.answer.ModelSetId, c.answer.Changed = r.id, r.changed
	return nil
}
