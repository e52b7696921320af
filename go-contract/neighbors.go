package anomaly

import (
	"cmp"
	"math"
	"slices"
)

// neighbor is a training row and its squared distance from the sample.
type neighbor struct {
	d2  float64
	row int32
}

// compare orders neighbours: the nearer first, of equals the one that comes first in training (rule LF2).
func (n neighbor) compare(other neighbor) int {
	return cmp.Or(cmp.Compare(n.d2, other.d2), cmp.Compare(n.row, other.row))
}

// neighborHeap keeps the nearest neighbours seen so far, at most cap(heap) of them, the last of them (LF2) at the root: every node
// comes after its children.
type neighborHeap []neighbor

// nearest fills the heap with the cap(heap) nearest rows and sorts them, the nearest first. There are at least as many rows.
func (h *neighborHeap) nearest(rows *trainingRows, z []float64) {
	*h = (*h)[:0]
	// Rows come in the order of training, so one that ties with the root comes after it: only what is truly nearer gets in.
	limit := math.Inf(1)
	for block := range rows.blocks() {
		distances := rows.squaredDistances(block, z)
		for l, d2 := range &distances {
			if d2 < limit {
				limit = h.add(neighbor{d2, int32(block*laneRows + l)})
			}
		}
	}
	slices.SortFunc(*h, neighbor.compare)
}

// add takes a neighbour in, in the place of the last one when the heap is full, and gives the distance above which the next ones are of
// no interest.
func (h *neighborHeap) add(n neighbor) (limit float64) {
	heap := *h
	if len(heap) == cap(heap) {
		heap.replaceRoot(n)
		return heap[0].d2
	}
	heap = append(heap, n)
	*h = heap
	at := len(heap) - 1
	for at > 0 {
		parent := (at - 1) / 2
		if n.compare(heap[parent]) < 0 {
			break
		}
		heap[at] = heap[parent]
		at = parent
	}
	heap[at] = n
	if len(heap) < cap(heap) {
		return math.Inf(1)
	}
	return heap[0].d2
}

// replaceRoot puts n in the place of the root and moves it down to where it belongs.
func (h neighborHeap) replaceRoot(n neighbor) {
	at := 0
	for {
		child := 2*at + 1
		if child >= len(h) {
			break
		}
		if right := child + 1; right < len(h) && h[right].compare(h[child]) > 0 {
			child = right
		}
		if n.compare(h[child]) > 0 {
			break
		}
		h[at] = h[child]
		at = child
	}
	h[at] = n
}
