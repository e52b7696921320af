package anomaly

import (
	"fmt"
	"sync"
	"time"
)

const (
	// failuresBeforeRest in a row put a sidecar to rest.
	failuresBeforeRest = 3
	shortestRest       = 100 * time.Millisecond
	longestRest        = 5 * time.Second
)

// errResting is ErrUnavailable to errors.Is: the sidecar was not asked.
var errResting = fmt.Errorf("%w: it failed %d times and more in a row and is asked again later", ErrUnavailable, failuresBeforeRest)

// rest remembers when a sidecar that failed is to be asked again.
type rest struct {
	mu       sync.Mutex
	failures int
	length   time.Duration
	until    time.Time
	// trying: one call is finding out whether the sidecar is back.
	trying bool
}

// asleep is nil when the sidecar is to be asked. After each rest that is one call alone, until it is answered.
func (r *rest) asleep() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.failures < failuresBeforeRest:
		return nil
	case r.trying || time.Now().Before(r.until):
		return errResting
	}
	r.trying = true
	return nil
}

func (r *rest) answered() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures, r.length, r.trying = 0, 0, false
}

func (r *rest) failed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures++
	r.trying = false
	// Calls that were on their way when the rest began do not make it longer.
	if r.failures >= failuresBeforeRest && !time.Now().Before(r.until) {
		r.length = min(max(2*r.length, shortestRest), longestRest)
		r.until = time.Now().Add(r.length)
	}
}

// gaveUp: the caller did not wait for the outcome.
func (r *rest) gaveUp() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.trying = false
}
