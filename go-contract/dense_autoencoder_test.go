package anomaly

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// randomDense draws the layers of a network: hidden widths, then the output.
func randomDense(random *rand.Rand, features int, units ...int) (s scaler, layers []denseLayer) {
	draw := func(n int, spread float64) []float64 {
		out := make([]float64, n)
		for i := range out {
			out[i] = float64(float32(random.NormFloat64() * spread))
		}
		return out
	}
	in := features
	for _, out := range append(append([]int{}, units...), features) {
		layers = append(layers, denseLayer{in: in, out: out, kernel: draw(in*out, 1/math.Sqrt(float64(in))), bias: draw(out, .1)})
		in = out
	}
	return randomScaler(random, features), layers
}

func makeDense(tb testing.TB, random *rand.Rand, features int, activation string, units ...int) madeModel {
	tb.Helper()
	s, layers := randomDense(random, features, units...)
	return denseOf(tb, s, activation, layers)
}

func denseOf(tb testing.TB, s scaler, activation string, layers []denseLayer) madeModel {
	tb.Helper()
	parameters := &anomalyv1.DenseParameters{Activation: activation, ThresholdPercentile: 99}
	values := map[string][]float64{}
	var units []int
	for i, l := range layers {
		units = append(units, l.out)
		if i < len(layers)-1 {
			parameters.Units = append(parameters.Units, uint32(l.out))
		}
		values[fmt.Sprintf("layer_%d.kernel", i+1)], values[fmt.Sprintf("layer_%d.bias", i+1)] = l.kernel, l.bias
	}
	meta := &anomalyv1.ModelMetadata{Dense: parameters, Threshold: 2.5}
	return makeModel(tb, DenseAutoencoder, meta, s, denseWiring(len(s.mean), activation, units), values)
}

// plainDense is DA1 as it is written, with math.Tanh: slow and easy to read.
func plainDense(activation string, layers []denseLayer, x []float64) []float64 {
	for i, l := range layers {
		next := make([]float64, l.out)
		for c := range next {
			next[c] = l.bias[c]
			for k, v := range x {
				next[c] += v * l.kernel[k*l.out+c]
			}
			if i == len(layers)-1 {
				continue
			}
			if activation == activationTanh {
				next[c] = math.Tanh(next[c])
			} else {
				next[c] = math.Max(next[c], 0)
			}
		}
		x = next
	}
	return x
}

func TestDenseEqualsThePlainFormula(t *testing.T) {
	random := rand.New(rand.NewPCG(61, 62))
	for _, activation := range []string{activationReLU, activationTanh} {
		for _, c := range []struct {
			features int
			units    []int
		}{{7, []int{64, 32, 16, 8, 16, 32, 64}}, {1, []int{1}}, {13, []int{5}}, {87, []int{128, 64, 32, 16, 32, 64, 128}}, {3, []int{7, 2, 11}}} {
			s, layers := randomDense(random, c.features, c.units...)
			e := denseOf(t, s, activation, layers).open(t)
			for range 50 {
				sample := randomRows(random, s, 1)
				z := scaleRow(s, sample)
				r := plainDense(activation, layers, z)
				parts, score := make([]float64, c.features), 0.0
				for j := range z {
					parts[j] = (z[j] - r[j]) * (z[j] - r[j])
					score += parts[j] / float64(c.features)
				}
				var v Verdict
				require.NoError(t, e.score(sample, ExplainAlways, &v))
				requireScore(t, score, v.Score)
				requireShares(t, parts, v.Contributions)
				for j := range r {
					want := r[j]*s.scale[j] + s.mean[j]
					require.InDelta(t, want, v.Expected[j], 1e-6*(1+math.Abs(want)))
				}
			}
		}
	}
}

// TestDenseScoreEndsAtTheLargestFloat32: a network that blows values up as far as DA2 allows still has finite scores (DA3).
func TestDenseScoreEndsAtTheLargestFloat32(t *testing.T) {
	s := scaler{mean: []float64{0}, scale: []float64{1}}
	layers := []denseLayer{{1, 1, []float64{1e67}, []float64{0}}, {1, 1, []float64{1e67}, []float64{0}}}
	e := denseOf(t, s, activationReLU, layers).open(t)
	var v Verdict
	require.NoError(t, e.score([]float64{math.MaxFloat64}, ExplainAlways, &v))
	require.Equal(t, float32(math.MaxFloat32), v.Score)
	require.True(t, v.IsAnomaly)
	require.Equal(t, []float32{1}, v.Contributions)
	require.NoError(t, e.score([]float64{-1}, ExplainAlways, &v))
	require.Equal(t, float32(1), v.Score, "relu lets nothing through")
	require.NoError(t, e.score([]float64{0}, ExplainAlways, &v))
	require.Equal(t, float32(0), v.Score)
	require.Equal(t, []float32{0}, v.Contributions)
}

func TestDenseBound(t *testing.T) {
	layer := func(kernel, bias float64) denseLayer {
		return denseLayer{in: 2, out: 2, kernel: []float64{kernel, 0, -kernel, 0}, bias: []float64{-bias, 0}}
	}
	for name, c := range map[string]struct {
		layers []denseLayer
		ok     bool
	}{
		"small":                  {[]denseLayer{layer(1, 1), layer(1, 1)}, true},
		"just below":             {[]denseLayer{layer(1.5e67, 0), layer(1.5e67, 0)}, true}, // columns of |W| sum to 3e67: 9e149
		"just above":             {[]denseLayer{layer(1.6e67, 0), layer(1.6e67, 0)}, false},
		"large kernels":          {[]denseLayer{layer(1e70, 0), layer(1e70, 0)}, false},
		"large bias":             {[]denseLayer{layer(1, 2e150)}, false},
		"bias that later grows":  {[]denseLayer{layer(0, 1e100), layer(1e60, 0)}, false},
		"an infinity on the way": {[]denseLayer{layer(1e300, 0), layer(1e300, 0), layer(0, 0)}, false},
	} {
		err := checkReconstruction(c.layers)
		require.Equal(t, c.ok, err == nil, "%s: %v", name, err)
	}
}
