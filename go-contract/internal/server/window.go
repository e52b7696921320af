package server

// window holds the last samples of one series, as many as a model scores at once, in a ring (rule ST3). Scoring copies them anyway, into
// one piece, so that a ring costs nothing, and no other shape takes less memory: a stream may have thousands of series.
type window struct {
	// values has room rows of the same width. The oldest of count rows is row number first.
	values       []float64
	first, count int
}

// restart forgets all samples (rule ST4).
func (w *window) restart() { w.first, w.count = 0, 0 }

// push adds a sample, and drops the oldest when there is no room for it.
func (w *window) push(sample []float64, room int) {
	width := len(sample)
	if w.values == nil {
		w.values = make([]float64, room*width)
	}
	at := w.first + w.count
	if at >= room {
		at -= room
	}
	copy(w.values[at*width:], sample)
	if w.count < room {
		w.count++
	} else if w.first++; w.first == room {
		w.first = 0
	}
}

// last appends the n newest samples, oldest first, to rows. There are so many.
func (w *window) last(n, room, width int, rows [][]float64) [][]float64 {
	at := w.first + w.count - n
	for range n {
		if at >= room {
			at -= room
		}
		rows = append(rows, w.values[at*width:][:width:width])
		at++
	}
	return rows
}

// resize gives the window more room.
func (w *window) resize(before, after, width int) {
	values := make([]float64, 0, after*width)
	for _, sample := range w.last(w.count, before, width, nil) {
		values = append(values, sample...)
	}
	w.values, w.first = values[:after*width], 0
}
