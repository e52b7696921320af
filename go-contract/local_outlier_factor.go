package anomaly

import (
	"math"
	"sync"
)

// reachFloor keeps a density finite where a sample lies on its neighbours (rule LF3).
const reachFloor = 1e-10

// localOutlierFactor is the native scorer of a local outlier factor (rules LF1 to LF7), in float64.
//
// It looks at every training row. A tree would save distances only where there are few features, and the neighbours would have to be the
// same to the last tie.
type localOutlierFactor struct {
	scaler
	threshold  float64
	nNeighbors int
	rows       *trainingRows
	// raw are the training rows in raw units, [rows, features] (LF6).
	raw []float64
	// kDistance and density of each training row, scaled units (LF3).
	kDistance, density []float64

	scratch sync.Pool // of *neighborScratch
}

type neighborScratch struct {
	z, errors []float64
	// heap has room for nNeighbors.
	heap neighborHeap
}

// neighborWeights are what training stored: rows [rows, features] in raw units, kDistance and density [rows].
type neighborWeights struct{ rows, kDistance, density []float64 }

func newLocalOutlierFactor(s scaler, threshold float64, nNeighbors int, w neighborWeights) *localOutlierFactor {
	a := &localOutlierFactor{
		scaler: s, threshold: threshold, nNeighbors: nNeighbors, rows: newTrainingRows(s, w.rows),
		raw: w.rows, kDistance: w.kDistance, density: w.density,
	}
	features := len(s.mean)
	a.scratch.New = func() any {
		return &neighborScratch{
			z: make([]float64, features), errors: make([]float64, features), heap: make(neighborHeap, 0, nNeighbors),
		}
	}
	return a
}

// score scores the row `window`.
func (a *localOutlierFactor) score(window []float64, explain Explain, verdict *Verdict) error {
	s := a.scratch.Get().(*neighborScratch)
	a.scaleWindow(s.z, window)
	s.heap.nearest(a.rows, s.z)
	reach, density := 0.0, 0.0
	for _, n := range s.heap {
		reach += max(a.kDistance[n.row], math.Sqrt(n.d2)) // LF3
		density += a.density[n.row]
	}
	k := float64(a.nNeighbors)
	if verdict.decide(density/k*(reach/k+reachFloor), a.threshold, explain) { // LF4, LF7
		a.explain(s, verdict)
	}
	a.scratch.Put(s)
	return nil
}

// explain appends contributions (LF5) and expected values (LF6).
func (a *localOutlierFactor) explain(s *neighborScratch, verdict *Verdict) {
	features, total := len(s.z), 0.0
	for j, z := range s.z {
		e, raw := 0.0, 0.0
		for _, n := range s.heap {
			d := z - a.rows.value(int(n.row), j)
			e += float64(d * d)
			raw += a.raw[int(n.row)*features+j]
		}
		s.errors[j] = e
		total += e
		verdict.Expected = append(verdict.Expected, float32(raw/float64(a.nNeighbors)))
	}
	verdict.Contributions = appendShares(verdict.Contributions, s.errors, total)
}

func (a *localOutlierFactor) close() error { return nil }
