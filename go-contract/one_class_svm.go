package anomaly

import "sync"

// insideFloor is the least that `inside` counts, 2^-100 (rule SV2).
const insideFloor = 0x1p-100

// oneClassSVM is the native scorer of a one-class SVM (rules SV1 to SV6), in float64.
type oneClassSVM struct {
	scaler
	threshold float64
	gamma     float64
	rows      *trainingRows
	// alpha has the weights of the support vectors, laid out like rows; what fills up the last block weighs 0.
	alpha []lanes
	// referenceScaled are the scaled reference values (SV4), expected the raw ones (SV5).
	referenceScaled []float64
	expected        []float32

	scratch sync.Pool // of *svmScratch
}

type svmScratch struct{ z, squares []float64 }

// svmWeights are what training stored: the support vectors [support vectors, features] in raw units and their weights.
type svmWeights struct {
	rows, alpha []float64
	gamma       float64
}

func newOneClassSVM(s scaler, threshold float64, w svmWeights, references []float64) *oneClassSVM {
	v := &oneClassSVM{scaler: s, threshold: threshold, gamma: w.gamma, rows: newTrainingRows(s, w.rows)}
	v.alpha = make([]lanes, v.rows.blocks())
	for i, a := range w.alpha {
		v.alpha[i/laneRows][i%laneRows] = a
	}
	v.referenceScaled, v.expected = s.references(references)
	n := len(references)
	v.scratch.New = func() any { return &svmScratch{z: make([]float64, n), squares: make([]float64, n)} }
	return v
}

// score scores the row `window`.
func (v *oneClassSVM) score(window []float64, explain Explain, verdict *Verdict) error {
	s := v.scratch.Get().(*svmScratch)
	v.scaleWindow(s.z, window)
	inside, outside := v.sums(s.z)
	if verdict.decide(outside/max(inside, insideFloor), v.threshold, explain) { // SV2, SV6
		total := squaresApart(s.squares, s.z, v.referenceScaled)
		verdict.Contributions = appendShares(verdict.Contributions, s.squares, total) // SV4
		verdict.Expected = append(verdict.Expected, v.expected...)
	}
	v.scratch.Put(s)
	return nil
}

// sums are inside and outside of SV2, each the sum of laneRows sums.
func (v *oneClassSVM) sums(z []float64) (inside, outside float64) {
	var in, out lanes
	for block := range v.alpha {
		kernel := v.rows.squaredDistances(block, z)
		for l := range kernel {
			kernel[l] *= -v.gamma
		}
		rest := expAndExpm1(&kernel)
		alpha := &v.alpha[block]
		for l := range alpha {
			in[l] += float64(alpha[l] * kernel[l])
			out[l] -= float64(alpha[l] * rest[l]) // SV3
		}
	}
	for l := range in {
		inside += in[l]
		outside += out[l]
	}
	return inside, outside
}

func (v *oneClassSVM) close() error { return nil }
