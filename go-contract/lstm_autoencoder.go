package anomaly

import "sync"

// lstmAutoencoder is the native scorer of an LSTM autoencoder (rules LA1 to LA8), in float64.
type lstmAutoencoder struct {
	scaler
	threshold           float64
	timesteps, features int

	encoder1, encoder2, decoder1, decoder2 *lstmLayer
	dense                                  *matrix

	scratch sync.Pool // of *autoencoderScratch
}

// networkWeights are all weights; dense is [units, features].
type networkWeights struct {
	layers                 [4]lstmWeights
	denseKernel, denseBias []float64
}

// autoencoderScratch is what one scoring works in.
type autoencoderScratch struct {
	lstmScratch
	z, errors, last []float64
	output          []block
}

func newLSTMAutoencoder(s scaler, threshold float64, timesteps int, w networkWeights) *lstmAutoencoder {
	features := len(s.mean)
	a := &lstmAutoencoder{scaler: s, threshold: threshold, timesteps: timesteps, features: features}
	widest := 0
	for i, layer := range []**lstmLayer{&a.encoder1, &a.encoder2, &a.decoder1, &a.decoder2} {
		*layer = newLSTMLayer(w.layers[i])
		widest = max(widest, w.layers[i].units)
	}
	a.dense = newMatrix(w.denseKernel, w.denseBias, a.decoder2.units, features, func(c int) (int, float64) { return c, 1 })
	a.scratch.New = func() any {
		floats := func(n int) []float64 { return make([]float64, n) }
		return &autoencoderScratch{
			lstmScratch: newLSTMScratch(timesteps, widest), z: floats(timesteps * features),
			errors: floats(features), last: floats(features), output: make([]block, a.dense.blocks),
		}
	}
	return a
}

// score scores a window of timesteps*features raw values.
func (a *lstmAutoencoder) score(window []float64, explain Explain, verdict *Verdict) error {
	s := a.scratch.Get().(*autoencoderScratch)
	features, steps := a.features, a.timesteps
	a.scaleWindow(s.z, window)
	bottleneck := a.encode(s)
	a.decoder1.run(&s.lstmScratch, bottleneck, s.even, steps)
	a.decoder2.run(&s.lstmScratch, s.even[:steps*a.decoder1.units], s.odd, steps)

	clear(s.errors)
	for t := range steps {
		copy(s.output, a.dense.bias)
		a.dense.addTo(s.output, s.odd[t*a.decoder2.units:][:a.decoder2.units])
		for j := range s.errors {
			r := s.output[j/blockColumns][j%blockColumns]
			d := s.z[t*features+j] - r
			s.errors[j] += float64(d * d)
			s.last[j] = r
		}
	}
	total := 0.0
	for _, e := range s.errors {
		total += e
	}
	if verdict.decide(total/float64(steps*features), a.threshold, explain) { // LA5, LA8
		verdict.Contributions = appendShares(verdict.Contributions, s.errors, total) // LA6
		for j, r := range s.last {
			verdict.Expected = append(verdict.Expected, float32(float64(r*a.scale[j])+a.mean[j])) // LA7
		}
	}
	a.scratch.Put(s)
	return nil
}

// encode runs both encoders over s.z and gives the last output of the second, the bottleneck (rule LA1).
func (a *lstmAutoencoder) encode(s *autoencoderScratch) []float64 {
	steps, units := a.timesteps, a.encoder2.units
	a.encoder1.run(&s.lstmScratch, s.z, s.even, steps)
	a.encoder2.run(&s.lstmScratch, s.even[:steps*a.encoder1.units], s.odd, steps)
	return s.odd[(steps-1)*units : steps*units]
}

func (a *lstmAutoencoder) close() error { return nil }
