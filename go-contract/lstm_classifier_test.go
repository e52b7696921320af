package anomaly

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// randomClassifier draws weights of about the size that training gives: sums of products stay of the size of 1.
func randomClassifier(random *rand.Rand, features int, units [3]int) (w classifierWeights) {
	draw := func(in, out int) []float64 {
		list := make([]float64, in*out)
		for i := range list {
			list[i] = float64(float32(random.NormFloat64() / math.Sqrt(float64(in))))
		}
		return list
	}
	in := features
	for i := range w.layers {
		u := units[i]
		w.layers[i] = lstmWeights{in: in, units: u, kernel: draw(in, 4*u), recurrent: draw(u, 4*u), bias: draw(1, 4*u)}
		in = u
	}
	w.denseKernel, w.denseBias = draw(in, units[2]), draw(1, units[2])
	w.outputKernel, w.outputBias = draw(units[2], 1), draw(1, 1)
	return w
}

func makeClassifier(tb testing.TB, random *rand.Rand, timesteps, features int, units ...int) madeModel {
	tb.Helper()
	s, three := randomScaler(random, features), [3]int(units)
	w, references := randomClassifier(random, features, three), randomRows(random, s, 1)
	var scores []float64
	for range 21 { // half of the windows alarm
		score, _ := plainClassifier(s, w, references, randomRows(random, s, timesteps))
		scores = append(scores, score)
	}
	slices.Sort(scores)
	return classifierOf(tb, s, timesteps, three, w, references, scores[10])
}

func classifierOf(
	tb testing.TB, s scaler, timesteps int, units [3]int, w classifierWeights, references []float64, threshold float64,
) madeModel {
	tb.Helper()
	parameters := &anomalyv1.ClassifierParameters{NormalWindows: 900, AnomalousWindows: 100}
	for _, u := range units {
		parameters.Units = append(parameters.Units, uint32(u))
	}
	meta := &anomalyv1.ModelMetadata{Classifier: parameters, Timesteps: proto.Uint32(uint32(timesteps)), Threshold: threshold}
	values := map[string][]float64{
		"dense_1.kernel": w.denseKernel, "dense_1.bias": w.denseBias, "output.kernel": w.outputKernel, "output.bias": w.outputBias,
		"reference_scaled": scaleRow(s, references), "reference_values": references,
	}
	for i, name := range classifierLayerNames {
		l := w.layers[i]
		values[name+".kernel"], values[name+".recurrent"], values[name+".bias"] = l.kernel, l.recurrent, l.bias
	}
	return makeModel(tb, LSTMClassifier, meta, s, classifierWiring(timesteps, len(s.mean), units), values)
}

// plainClassifier is LC1, LC2 and the parts of LC4 as they are written, with math.Exp and math.Tanh: slow and easy to read.
func plainClassifier(s scaler, w classifierWeights, references, window []float64) (score float64, parts []float64) {
	width := len(s.mean)
	parts = make([]float64, width)
	var sequence [][]float64
	for row := range slices.Chunk(window, width) {
		z := scaleRow(s, row)
		for j := range z {
			d := z[j] - s.scale1(references[j], j)
			parts[j] += d * d
		}
		sequence = append(sequence, z)
	}
	for _, l := range w.layers {
		sequence = plainLayer(l, sequence)
	}
	last, logit := sequence[len(sequence)-1], w.outputBias[0]
	for u, x := range w.denseBias {
		for k, h := range last {
			x += h * w.denseKernel[k*len(w.denseBias)+u]
		}
		logit += max(x, 0) * w.outputKernel[u]
	}
	return 1 / (1 + math.Exp(-logit)), parts
}

func TestClassifierEqualsThePlainFormula(t *testing.T) {
	random := rand.New(rand.NewPCG(61, 62))
	for _, c := range []struct {
		timesteps, features int
		units               [3]int
	}{{10, 7, [3]int{64, 32, 16}}, {1, 3, [3]int{5, 1, 3}}, {4, 13, [3]int{7, 9, 6}}, {100, 8, [3]int{16, 8, 4}}, {256, 2, [3]int{3, 4, 7}}} {
		s := randomScaler(random, c.features)
		references := randomRows(random, s, 1)
		for range 4 {
			w := randomClassifier(random, c.features, c.units)
			e := classifierOf(t, s, c.timesteps, c.units, w, references, .5).open(t)
			for range 5 {
				window := randomRows(random, s, c.timesteps)
				want, parts := plainClassifier(s, w, references, window)
				var v Verdict
				require.NoError(t, e.score(window, ExplainAlways, &v))
				requireScore(t, want, v.Score)
				require.Equal(t, float64(v.Score) > .5, v.IsAnomaly) // LC6
				requireShares(t, parts, v.Contributions)
				for j := range references {
					require.Equal(t, float32(references[j]), v.Expected[j])
				}
			}
			var v Verdict
			require.NoError(t, e.score(slices.Repeat(references, c.timesteps), ExplainAlways, &v))
			require.Equal(t, make([]float32, c.features), v.Contributions, "LC4: nothing lies apart from the medians")
		}
	}
}

// TestClassifierHasSmallProbabilities: the sigmoid does not cancel, so that normal windows have different scores (LC2).
func TestClassifierHasSmallProbabilities(t *testing.T) {
	random := rand.New(rand.NewPCG(63, 64))
	s, units := randomScaler(random, 3), [3]int{4, 3, 2}
	references := randomRows(random, s, 1)
	for _, bias := range []float64{-1000, -100, -40, -25, 0, 25, 1000} {
		w := randomClassifier(random, 3, units)
		w.outputBias[0] = bias
		e := classifierOf(t, s, 6, units, w, references, .5).open(t)
		window := randomRows(random, s, 6)
		want, _ := plainClassifier(s, w, references, window)
		var v Verdict
		require.NoError(t, e.score(window, ExplainNever, &v))
		requireScore(t, want, v.Score)
	}
}

// TestClassifierOfTheLargestWeights: a finite score, whatever float32 weights and sample (LC2, F4).
func TestClassifierOfTheLargestWeights(t *testing.T) {
	random := rand.New(rand.NewPCG(65, 66))
	s, units := randomScaler(random, 2), [3]int{3, 2, 4}
	w := randomClassifier(random, 2, units)
	for _, list := range [][]float64{
		w.layers[0].kernel, w.layers[0].recurrent, w.layers[0].bias, w.layers[1].kernel, w.layers[1].recurrent, w.denseKernel, w.denseBias,
		w.outputKernel, w.outputBias,
	} {
		for i := range list {
			list[i] = math.Copysign(math.MaxFloat32, list[i])
		}
	}
	e := classifierOf(t, s, 4, units, w, s.mean, .5).open(t)
	for _, sample := range append(farSamples(2), randomRows(random, s, 1)) {
		var v Verdict
		require.NoError(t, e.score(slices.Repeat(sample, 4), ExplainAlways, &v))
		require.True(t, v.Score >= 0 && v.Score <= 1, "%v of %v", v.Score, sample)
	}
}

// BenchmarkClassifier scores windows of 100 samples of 8 features with 64, 32 and 16 units.
func BenchmarkClassifier(b *testing.B) {
	for _, explain := range []Explain{ExplainNever, ExplainAlways} {
		b.Run(fmt.Sprint("explain=", explain), func(b *testing.B) {
			random := rand.New(rand.NewPCG(67, 68))
			m := makeClassifier(b, random, 100, 8, 64, 32, 16)
			set := m.set(b)
			sample := randomRows(random, m.scaler(), 100)
			request := Request{Detector: LSTMClassifier, Samples: slices.Collect(slices.Chunk(sample, 8)), Explain: explain}
			var verdict Verdict
			b.ReportAllocs()
			for b.Loop() {
				if err := set.Score(b.Context(), request, &verdict); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
