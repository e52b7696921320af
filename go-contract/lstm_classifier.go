package anomaly

import "sync"

// lstmClassifier is the native scorer of an LSTM classifier (rules LC1 to LC6), in float64.
type lstmClassifier struct {
	scaler
	threshold float64
	timesteps int

	lstm1, lstm2 *lstmLayer
	dense        *matrix
	// denseUnits is the width of dense, whose last block may be filled up.
	denseUnits int
	// output has a single column, negated: its sum is the exponent of the sigmoid at once.
	output *matrix
	// referenceScaled are the scaled reference values (LC4), expected the raw ones (LC5).
	referenceScaled []float64
	expected        []float32

	scratch sync.Pool // of *classifierScratch
}

// classifierWeights are all weights: dense is [units of lstm_2, units], output [units, 1].
type classifierWeights struct {
	layers                   [2]lstmWeights
	denseKernel, denseBias   []float64
	outputKernel, outputBias []float64
}

// classifierScratch is what one scoring works in.
type classifierScratch struct {
	lstmScratch
	z, squares []float64
	// hidden are the sums of dense_1, active their rectified values.
	hidden []block
	active []float64
}

func newLSTMClassifier(s scaler, threshold float64, timesteps int, w classifierWeights, references []float64) *lstmClassifier {
	same := func(c int) (int, float64) { return c, 1 }
	negated := func(c int) (int, float64) { return c, -1 }
	c := &lstmClassifier{
		scaler: s, threshold: threshold, timesteps: timesteps, denseUnits: len(w.denseBias),
		lstm1: newLSTMLayer(w.layers[0]), lstm2: newLSTMLayer(w.layers[1]),
		dense:  newMatrix(w.denseKernel, w.denseBias, w.layers[1].units, len(w.denseBias), same),
		output: newMatrix(w.outputKernel, w.outputBias, len(w.denseBias), 1, negated),
	}
	c.referenceScaled, c.expected = s.references(references)
	features, widest := len(references), max(w.layers[0].units, w.layers[1].units)
	c.scratch.New = func() any {
		return &classifierScratch{
			lstmScratch: newLSTMScratch(timesteps, widest), z: make([]float64, timesteps*features), squares: make([]float64, features),
			hidden: make([]block, c.dense.blocks), active: make([]float64, c.dense.blocks*blockColumns),
		}
	}
	return c
}

// score scores a window of timesteps*features raw values.
func (c *lstmClassifier) score(window []float64, explain Explain, verdict *Verdict) error {
	s := c.scratch.Get().(*classifierScratch)
	c.scaleWindow(s.z, window)
	if verdict.decide(c.probability(s), c.threshold, explain) { // LC2, LC6
		total := squaresApart(s.squares, s.z, c.referenceScaled)
		verdict.Contributions = appendShares(verdict.Contributions, s.squares, total) // LC4
		verdict.Expected = append(verdict.Expected, c.expected...)                    // LC5
	}
	c.scratch.Put(s)
	return nil
}

// probability runs the network on s.z (rules LC1, LC2).
func (c *lstmClassifier) probability(s *classifierScratch) float64 {
	c.lstm1.run(&s.lstmScratch, s.z, s.even, c.timesteps)
	c.lstm2.run(&s.lstmScratch, s.even[:c.timesteps*c.lstm1.units], s.odd, c.timesteps)
	copy(s.hidden, c.dense.bias)
	c.dense.addTo(s.hidden, s.odd[(c.timesteps-1)*c.lstm2.units:][:c.lstm2.units])
	for p := range s.hidden {
		for k, v := range s.hidden[p] {
			s.active[p*blockColumns+k] = max(v, 0)
		}
	}
	exponent := [1]block{c.output.bias[0]}
	c.output.addTo(exponent[:], s.active[:c.denseUnits])
	q := exponent[0][:1]
	expm1All(q)
	return 1 / (2 + q[0]) // without cancellation, however small it is
}

func (c *lstmClassifier) close() error { return nil }
