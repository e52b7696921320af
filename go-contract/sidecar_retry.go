package anomaly

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	firstPause   = 10 * time.Millisecond
	longestPause = time.Second
)

// call sends over one connection after the other until an answer comes, a refusal does, or no further attempt is allowed
// (WithRetries).
func (s *Sidecar) call(ctx context.Context, send func(context.Context, *connection) error) error {
	ctx, cancel := s.withDeadline(ctx)
	defer cancel()
	var last *connection
	for attempt := 0; ; attempt++ {
		c := s.connections.pick(last)
		c.inFlight.Add(1)
		err := send(ctx, c)
		c.inFlight.Add(-1)
		s.counts.attempts.Add(1)
		if err == nil {
			s.budget.earn()
			return nil
		}
		if attempt >= s.retries || !maySendAgain(ctx, err) || !s.budget.spend() || !pause(ctx, attempt) {
			return callFailed(ctx, err, attempt+1)
		}
		s.counts.retries.Add(1)
		last = c
	}
}

// maySendAgain says whether nothing was scored for good: the server never began, or its answer is lost.
func maySendAgain(ctx context.Context, err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.ResourceExhausted, codes.Canceled:
		return ctx.Err() == nil
	}
	return false
}

// pause waits before a further attempt, a random time so that clients do not come back all at once. It is false, at once, when the
// deadline would pass meanwhile.
func pause(ctx context.Context, attempt int) bool {
	d := min(firstPause<<min(attempt, 16), longestPause)
	d = d/2 + rand.N(d/2)
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= d {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// A budget allows a few retries at once, and for long one for every ten calls that succeed.
type budget struct{ tenths atomic.Int64 }

const (
	fullBudget = 100 // ten retries
	retryCosts = 10
)

func newBudget() *budget {
	b := &budget{}
	b.tenths.Store(fullBudget)
	return b
}

func (b *budget) earn() {
	if b.tenths.Load() < fullBudget { // two callers at once may overshoot by one: no harm
		b.tenths.Add(1)
	}
}

func (b *budget) spend() bool {
	for {
		left := b.tenths.Load()
		if left < retryCosts {
			return false
		}
		if b.tenths.CompareAndSwap(left, left-retryCosts) {
			return true
		}
	}
}
