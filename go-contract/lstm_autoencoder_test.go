package anomaly

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// plainAutoencoder is LA1 to LA8 as they are written, with math.Exp and math.Tanh: slow and easy to read.
func plainAutoencoder(s scaler, w networkWeights, window []float64, timesteps int) (score float64, errors, expected []float64) {
	width := len(s.mean)
	z := make([][]float64, timesteps)
	for t := range z {
		z[t] = make([]float64, width)
		for j := range z[t] {
			z[t][j] = s.scale1(window[t*width+j], j)
		}
	}
	sequence := z
	for i, l := range w.layers {
		if i == 2 {
			last := sequence[timesteps-1]
			sequence = make([][]float64, timesteps)
			for t := range sequence {
				sequence[t] = last
			}
		}
		sequence = plainLayer(l, sequence)
	}
	errors, expected = make([]float64, width), make([]float64, width)
	for t, h := range sequence {
		for j := range width {
			r := w.denseBias[j]
			for u, v := range h {
				r += v * w.denseKernel[u*width+j]
			}
			errors[j] += (z[t][j] - r) * (z[t][j] - r)
			expected[j] = r*s.scale[j] + s.mean[j]
		}
	}
	for _, e := range errors {
		score += e / float64(timesteps*width)
	}
	return score, errors, expected
}

func plainLayer(l lstmWeights, inputs [][]float64) [][]float64 {
	sig := func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
	h, c := make([]float64, l.units), make([]float64, l.units)
	var out [][]float64
	for _, x := range inputs {
		a := append([]float64(nil), l.bias...)
		for g := range a {
			for k, v := range x {
				a[g] += v * l.kernel[k*4*l.units+g]
			}
			for k, v := range h {
				a[g] += v * l.recurrent[k*4*l.units+g]
			}
		}
		next := make([]float64, l.units)
		for u := range l.units {
			i, f, o, g := sig(a[u]), sig(a[l.units+u]), sig(a[2*l.units+u]), math.Tanh(a[3*l.units+u])
			c[u] = f*c[u] + i*g
			next[u] = o * math.Tanh(c[u])
		}
		h = next
		out = append(out, h)
	}
	return out
}

func randomNetwork(random *rand.Rand, features int, units [4]int) (scaler, networkWeights) {
	draw := func(n int) []float64 {
		out := make([]float64, n)
		for i := range out {
			out[i] = float64(float32(random.NormFloat64() * .4))
		}
		return out
	}
	s := scaler{mean: draw(features), scale: draw(features)}
	for j := range s.scale {
		s.scale[j] = 1 + s.scale[j]*s.scale[j]
	}
	var w networkWeights
	in := features
	for i, u := range units {
		w.layers[i] = lstmWeights{in: in, units: u, kernel: draw(in * 4 * u), recurrent: draw(u * 4 * u), bias: draw(4 * u)}
		in = u
	}
	w.denseKernel, w.denseBias = draw(in*features), draw(features)
	return s, w
}

func TestAutoencoderEqualsThePlainFormula(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, c := range []struct {
		features, timesteps int
		units               [4]int
	}{{7, 10, [4]int{64, 32, 32, 64}}, {3, 1, [4]int{5, 1, 3, 2}}, {13, 4, [4]int{7, 9, 6, 11}}} {
		for range 20 {
			s, w := randomNetwork(random, c.features, c.units)
			a := newLSTMAutoencoder(s, .5, c.timesteps, w)
			window := make([]float64, c.features*c.timesteps)
			for k := range window {
				window[k] = 3 * random.NormFloat64()
			}
			score, errors, expected := plainAutoencoder(s, w, window, c.timesteps)
			var v Verdict
			require.NoError(t, a.score(window, ExplainAlways, &v))
			require.Equal(t, float32(score), v.Score)
			total := 0.0
			for _, e := range errors {
				total += e
			}
			for j := range errors {
				require.InDelta(t, errors[j]/total, v.Contributions[j], 1e-7)
				require.InEpsilon(t, expected[j], v.Expected[j], 1e-6)
			}
		}
	}
}

func TestAutoencoderIsFiniteAtTheEnds(t *testing.T) {
	set := openReference(t)
	for _, x := range []float64{math.MaxFloat64, -math.MaxFloat64, 1e300, -0.0} {
		window := make([][]float64, 10)
		for i := range window {
			window[i] = []float64{x, x, x, x, x, x, x}
		}
		var v Verdict
		require.NoError(t, set.Score(t.Context(), Request{Detector: LSTMAutoencoder, Samples: window, Explain: ExplainAlways}, &v))
		require.True(t, finite(float64(v.Score)))
		sum := 0.0
		for _, c := range v.Contributions {
			sum += float64(c)
		}
		require.InDelta(t, 1, sum, 1e-6)
	}
}
