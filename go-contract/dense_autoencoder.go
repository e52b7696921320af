package anomaly

import (
	"math"
	"sync"
)

// Names of the activations of hidden layers (rule DA1).
const (
	activationReLU = "relu"
	activationTanh = "tanh"
)

// denseAutoencoder is the native scorer of a dense autoencoder (rules DA1 to DA6), in float64. Its matrices are laid out like those of
// the LSTM autoencoder.
type denseAutoencoder struct {
	scaler
	threshold float64
	// tanh says that the hidden layers have tanh, else they have relu. The columns before a tanh are multiplied by -2, which is exact
	// and what its exponent needs.
	tanh bool
	// layers are the matrices of the hidden layers, then of the output layer.
	layers []*matrix

	scratch sync.Pool // of *denseScratch
}

// denseLayer are the weights of a layer as the graph has them: kernel [in, out], bias [out].
type denseLayer struct {
	in, out      int
	kernel, bias []float64
}

// denseScratch is what one scoring works in.
type denseScratch struct {
	z, errors []float64
	// values are the inputs of a layer, sums what it adds up.
	values []float64
	sums   []block
}

func newDenseAutoencoder(s scaler, threshold float64, activation string, layers []denseLayer) *denseAutoencoder {
	a := &denseAutoencoder{scaler: s, threshold: threshold, tanh: activation == activationTanh}
	features, widest := len(s.mean), 0
	for i, l := range layers {
		factor := 1.0
		if a.tanh && i < len(layers)-1 {
			factor = -2
		}
		a.layers = append(a.layers, newMatrix(l.kernel, l.bias, l.in, l.out, func(c int) (int, float64) { return c, factor }))
		widest = max(widest, blocksOf(l.out))
	}
	a.scratch.New = func() any {
		return &denseScratch{
			z: make([]float64, features), errors: make([]float64, features),
			values: make([]float64, widest*blockColumns), sums: make([]block, widest),
		}
	}
	return a
}

// score scores the row `window`.
func (a *denseAutoencoder) score(window []float64, explain Explain, verdict *Verdict) error {
	s := a.scratch.Get().(*denseScratch)
	a.scaleWindow(s.z, window)
	reconstruction := a.reconstruct(s)
	total := squaresApart(s.errors, s.z, reconstruction)
	if verdict.decide(min(total/float64(len(s.z)), math.MaxFloat32), a.threshold, explain) { // DA3, DA6
		verdict.Contributions = appendShares(verdict.Contributions, s.errors, total) // DA4
		for j := range s.z {
			verdict.Expected = append(verdict.Expected, float32(float64(reconstruction[j]*a.scale[j])+a.mean[j])) // DA5
		}
	}
	a.scratch.Put(s)
	return nil
}

// reconstruct runs the layers on s.z and gives the output, one value per feature (rule DA1).
func (a *denseAutoencoder) reconstruct(s *denseScratch) []float64 {
	x := s.z
	for i, layer := range a.layers {
		sums := s.sums[:layer.blocks]
		copy(sums, layer.bias)
		layer.addTo(sums, x)
		x = s.values[:blockColumns*len(sums)]
		for p := range sums {
			*(*block)(x[blockColumns*p:]) = sums[p]
		}
		if i == len(a.layers)-1 {
			break
		}
		x = x[:a.layers[i+1].in]
		if a.tanh {
			expm1All(x)
			for k, q := range x {
				x[k] = -q / (2 + q)
			}
			continue
		}
		for k, v := range x {
			if v < 0 {
				x[k] = 0
			}
		}
	}
	return x
}

func (a *denseAutoencoder) close() error { return nil }
