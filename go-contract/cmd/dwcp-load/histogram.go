package main

import (
	"math/bits"
	"time"
)

// histogram counts latencies in buckets that are 1/128 wide, relative to their value: memory is fixed, and a quantile is exact to 0.4 %.
type histogram struct {
	counts [64 * 128]uint32
	total  uint64
	max    time.Duration
}

func (h *histogram) add(d time.Duration) {
	h.counts[bucket(uint64(max(d, 0)))]++
	h.total++
	h.max = max(h.max, d)
}

// bucket keeps the 8 leading bits of a number.
func bucket(v uint64) int {
	shift := max(bits.Len64(v)-8, 0)
	return shift*128 + int(v>>shift)
}

// middle is the middle of a bucket, the inverse of bucket.
func middle(b int) float64 {
	if b < 256 {
		return float64(b)
	}
	shift := b/128 - 1
	return (float64(b-shift*128) + 0.5) * float64(uint64(1)<<shift)
}

func (h *histogram) merge(other *histogram) {
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.total += other.total
	h.max = max(h.max, other.max)
}

// quantile is the smallest latency that at least the share q of all calls did not exceed, in ms; 0 when there was none.
func (h *histogram) quantile(q float64) float64 {
	var seen uint64
	for b, n := range h.counts {
		seen += uint64(n)
		if seen > 0 && float64(seen) >= q*float64(h.total) {
			return min(middle(b), float64(h.max)) / 1e6
		}
	}
	return 0
}
