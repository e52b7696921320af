package anomaly

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var errBroken = refuse(CodeGoldenMismatch, "x", "broken")

// TestLazyCacheAgainstAModel takes random steps, and a list in the order of use says what has to be there (rules FL4, FL5, FL7).
func TestLazyCacheAgainstAModel(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 0))
		limit := 1 + random.IntN(4)
		now := time.Unix(0, 0)
		cache := newLazyCache[int](limit, 1, time.Minute)
		cache.now = func() time.Time { return now }
		var held []string // the one used last at the end
		values, failed, broken := map[string]int{}, map[string]time.Time{}, map[string]bool{}
		made := 0
		for range 60 {
			key := string(rune('a' + random.IntN(7)))
			switch random.IntN(8) {
			case 0:
				broken[key] = !broken[key]
			case 1:
				now = now.Add(time.Duration(random.IntN(70)) * time.Second)
			case 2:
				cache.retain(func(k string) bool { return k < key })
				var kept []string
				for _, k := range held {
					if k < key {
						kept = append(kept, k)
					}
				}
				held = kept
				clear(failed)
			default:
				tried := false
				got, err := cache.get(key, func() (int, *Error) {
					tried = true
					if broken[key] {
						return 0, errBroken
					}
					made++
					values[key] = made
					return made, nil
				})
				at := -1
				for i, k := range held {
					if k == key {
						at = i
					}
				}
				remembered := at < 0 && now.Before(failed[key])
				require.Equal(t, at < 0 && !remembered, tried, "seed %d: %s of %v", seed, key, held)
				if at >= 0 {
					held = append(held[:at:at], held[at+1:]...)
				} else if tried && len(held) == limit {
					held = held[1:]
				}
				if at < 0 && (remembered || broken[key]) {
					require.Same(t, errBroken, err)
					if tried {
						failed[key] = now.Add(time.Minute)
					}
					break
				}
				delete(failed, key)
				require.Nil(t, err)
				require.Equal(t, values[key], got)
				held = append(held, key)
			}
			counts := cache.count()
			require.Equal(t, len(held), counts.Open, "seed %d", seed)
			require.Equal(t, uint64(counts.Open), counts.Opened-counts.Closed)
			var order []string
			for e := cache.recent.Back(); e != nil; e = e.Prev() {
				order = append(order, e.Value.(*place[int]).key)
			}
			require.Equal(t, fmt.Sprint(held), fmt.Sprint(order), "seed %d", seed)
		}
	}
}

// TestLazyCacheOpensOnce: those who need a value while it is being opened wait for it, and share its refusal.
func TestLazyCacheOpensOnce(t *testing.T) {
	for _, refusal := range []*Error{nil, errBroken} {
		cache := newLazyCache[int](2, 1, time.Minute)
		var opened atomic.Int64
		goOn := make(chan struct{})
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				value, err := cache.get("a", func() (int, *Error) {
					<-goOn
					return int(opened.Add(1)), refusal
				})
				assert.True(t, err == refusal)
				assert.True(t, value == 1 || refusal != nil)
			})
		}
		close(goOn)
		all.Wait()
		assert.EqualValues(t, 1, opened.Load())
	}
}

// TestLazyCacheWaitsForAPlace: with all places taken by values that are being opened, the next caller waits.
func TestLazyCacheWaitsForAPlace(t *testing.T) {
	cache := newLazyCache[string](1, 2, time.Minute)
	goOn, began := make(chan struct{}), make(chan struct{})
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = cache.get("a", func() (string, *Error) { close(began); <-goOn; return "a", nil })
	})
	<-began
	both.Go(func() {
		value, err := cache.get("b", func() (string, *Error) { return "b", nil })
		assert.Nil(t, err)
		assert.Equal(t, "b", value)
	})
	time.Sleep(10 * time.Millisecond)
	assert.Zero(t, cache.count().Opened)
	close(goOn)
	both.Wait()
	assert.Equal(t, FleetCounts{Open: 1, Opened: 2, Closed: 1}, cache.count())
}

// TestLazyCacheSurvivesAPanic: who panics leaves no place behind for which the others would wait for ever.
func TestLazyCacheSurvivesAPanic(t *testing.T) {
	cache := newLazyCache[int](1, 1, time.Minute)
	assert.Panics(t, func() { _, _ = cache.get("a", func() (int, *Error) { panic("bug") }) })
	_, err := cache.get("a", func() (int, *Error) { return 1, nil })
	require.NotNil(t, err)
	assert.Equal(t, CodeInternal, err.Code)
	value, err := cache.get("b", func() (int, *Error) { return 2, nil })
	assert.Nil(t, err)
	assert.Equal(t, 2, value)
}

// TestLazyCacheUnderLoad: whatever goroutines do, a value is of its key, and no more are held than fit.
func TestLazyCacheUnderLoad(t *testing.T) {
	cache := newLazyCache[string](3, 2, time.Minute)
	var all sync.WaitGroup
	for seed := range uint64(6) {
		all.Go(func() {
			random := rand.New(rand.NewPCG(seed, 1))
			for step := range 500 {
				key := string(rune('a' + random.IntN(6)))
				value, err := cache.get(key, func() (string, *Error) { return key, nil })
				assert.Nil(t, err)
				assert.Equal(t, key, value)
				if step%100 == 0 {
					cache.retain(func(k string) bool { return k < "d" })
				}
				assert.LessOrEqual(t, cache.count().Open, 3)
			}
		})
	}
	all.Wait()
	counts := cache.count()
	assert.Equal(t, uint64(counts.Open), counts.Opened-counts.Closed)
}
