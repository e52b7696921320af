package anomaly

import (
	"container/list"
	"sync"
	"time"
)

// lazyCache holds at most limit values by their keys: each is opened when it is first needed, once, and the one that was not used for
// longest is let go of first. Whoever still works with a value keeps it; the garbage collector frees it after the last one. It is safe
// for concurrent use.
type lazyCache[V any] struct {
	limit int
	// patience is how long a failure is remembered: until then it is given again without another try.
	patience time.Duration
	now      func() time.Time
	// openers lets so many values be opened at a time.
	openers chan struct{}

	mutex sync.Mutex
	// room wakes those who wait for a place, while all places are taken by values that are being opened.
	room   *sync.Cond
	places map[string]*place[V]
	// recent has the places that are open, the one used last in front.
	recent   *list.List
	failures map[string]failure
	counts   FleetCounts
}

// place is where a value is, or will be. The others wait for ready.
type place[V any] struct {
	key   string
	ready chan struct{}
	value V
	err   *Error
	// at is the element of recent; nil while the value is being opened. Guarded by the cache's mutex.
	at *list.Element
}

type failure struct {
	err   *Error
	until time.Time
}

func newLazyCache[V any](limit, openers int, patience time.Duration) *lazyCache[V] {
	c := &lazyCache[V]{
		limit: limit, patience: patience, now: time.Now, openers: make(chan struct{}, openers),
		places: map[string]*place[V]{}, recent: list.New(), failures: map[string]failure{},
	}
	c.room = sync.NewCond(&c.mutex)
	return c
}

// get gives the value of a key; open makes it where it is not held. Callers that want the same one meanwhile wait.
func (c *lazyCache[V]) get(key string, open func() (V, *Error)) (V, *Error) {
	c.mutex.Lock()
	for {
		if p := c.places[key]; p != nil {
			c.counts.Hits++
			if p.at != nil {
				c.recent.MoveToFront(p.at)
				c.mutex.Unlock()
				return p.value, nil
			}
			c.mutex.Unlock()
			<-p.ready
			return p.value, p.err
		}
		if f, failed := c.failures[key]; failed {
			if c.now().Before(f.until) {
				c.mutex.Unlock()
				var none V
				return none, f.err
			}
			delete(c.failures, key)
		}
		if len(c.places) < c.limit || c.makeRoom() {
			break
		}
		c.room.Wait()
	}
	p := &place[V]{key: key, ready: make(chan struct{})}
	c.places[key] = p
	c.mutex.Unlock()
	c.fill(p, open)
	return p.value, p.err
}

// fill opens the value of a place. A panic of open leaves no place behind that nobody fills.
func (c *lazyCache[V]) fill(p *place[V], open func() (V, *Error)) {
	p.err = refuse(CodeInternal, "", "opening it did not end")
	defer func() {
		c.mutex.Lock()
		defer c.mutex.Unlock()
		held := c.places[p.key] == p
		switch {
		case p.err != nil:
			c.counts.Failed++
			if held {
				delete(c.places, p.key)
				c.failures[p.key] = failure{p.err, c.now().Add(c.patience)}
			}
		case held:
			c.counts.Opened++
			p.at = c.recent.PushFront(p)
		default: // nobody wants it kept any more
			c.counts.Opened++
			c.counts.Closed++
		}
		close(p.ready)
		c.room.Broadcast()
	}()
	c.openers <- struct{}{}
	defer func() { <-c.openers }()
	p.value, p.err = open()
}

// makeRoom lets go of the value that was not used for longest; false when all are being opened.
func (c *lazyCache[V]) makeRoom() bool {
	oldest := c.recent.Back()
	if oldest == nil {
		return false
	}
	c.drop(oldest.Value.(*place[V]))
	return true
}

func (c *lazyCache[V]) drop(p *place[V]) {
	delete(c.places, p.key)
	if p.at != nil {
		c.recent.Remove(p.at)
		c.counts.Closed++
	}
}

// retain lets go of all values that keep does not want, and forgets all failures. What is being opened and not wanted reaches those
// who wait for it, and is not held.
func (c *lazyCache[V]) retain(keep func(key string) bool) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for key, p := range c.places {
		if !keep(key) {
			c.drop(p)
		}
	}
	clear(c.failures)
	c.room.Broadcast()
}

func (c *lazyCache[V]) count() FleetCounts {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	counts := c.counts
	counts.Open = c.recent.Len()
	return counts
}
