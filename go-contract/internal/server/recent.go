package server

import (
	"sync"

	anomaly "dwcp.internal/anomaly"
)

// largestRecent is the number of values that are kept for a detector, however wide its rows are (rule DR6): 8 MiB.
const largestRecent = 1 << 20

// recent are the last rows that a detector was asked to score, to be compared with its training rows (rule DR6). A nil one keeps
// nothing. The rows are kept as they came, in a ring, and counted when somebody looks: a call pays for one copy alone, and no sum is
// ever corrected for a row that leaves.
type recent struct {
	reference   *anomaly.DriftReference
	width, room int

	mutex sync.Mutex
	// What follows is guarded by mutex. values grows to room rows; next is the row to be written, added counts all.
	values []float64
	next   int
	added  uint64

	// comparing lets one comparison run at a time; found is that of the first `compared` rows.
	comparing sync.Mutex
	found     []anomaly.FeatureDrift
	compared  uint64
}

// newRecent keeps at most window rows; nil when there is nothing to compare with, or no window.
func newRecent(reference *anomaly.DriftReference, width, window int) *recent {
	if reference == nil || window == 0 {
		return nil
	}
	return &recent{reference: reference, width: width, room: min(window, max(1, largestRecent/width))}
}

// add takes one scored row.
func (r *recent) add(row []float64) {
	if r == nil {
		return
	}
	r.mutex.Lock()
	r.push(row)
	r.mutex.Unlock()
}

// addItems takes the last row of each of count items, which stand stride values apart in rows; the last row of the first begins at first.
func (r *recent) addItems(rows []float64, first, stride, count int) {
	if r == nil {
		return
	}
	skip := max(0, count-r.room) // rows that would be gone at the end anyway
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.added += uint64(skip)
	for i := skip; i < count; i++ {
		r.push(rows[first+i*stride:][:r.width])
	}
}

func (r *recent) push(row []float64) {
	if len(r.values) < r.room*r.width {
		r.values = append(r.values, row...)
	} else {
		copy(r.values[r.next*r.width:], row)
	}
	if r.next++; r.next == r.room {
		r.next = 0
	}
	r.added++
}

// compare gives the number of rows and, when they are enough, how far each feature is from the training rows.
func (r *recent) compare() (rows int, found []anomaly.FeatureDrift) {
	r.comparing.Lock()
	defer r.comparing.Unlock()
	r.mutex.Lock()
	rows = len(r.values) / r.width
	if rows < r.reference.Least() {
		r.mutex.Unlock()
		return rows, nil
	}
	if r.found != nil && r.compared == r.added {
		r.mutex.Unlock()
		return rows, r.found
	}
	values := append([]float64(nil), r.values...) // in any order: a distribution has none
	r.compared = r.added
	r.mutex.Unlock()
	r.found = r.reference.Compare(values)
	return rows, r.found
}
