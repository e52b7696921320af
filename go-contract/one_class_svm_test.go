package anomaly

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

func makeSVM(tb testing.TB, random *rand.Rand, features, vectors int) madeModel {
	tb.Helper()
	s := randomScaler(random, features)
	w := svmWeights{rows: randomRows(random, s, vectors), gamma: 1 / float64(features), alpha: make([]float64, vectors)}
	for i := range w.alpha {
		w.alpha[i] = 1e-3 + random.Float64()
	}
	return svmOf(tb, s, w, randomRows(random, s, 1))
}

func svmOf(tb testing.TB, s scaler, w svmWeights, references []float64) madeModel {
	tb.Helper()
	features, vectors := len(s.mean), len(w.alpha)
	meta := &anomalyv1.ModelMetadata{
		Svm: &anomalyv1.SvmParameters{Gamma: w.gamma, Nu: .05, SupportVectors: uint32(vectors)}, Threshold: 20,
	}
	return makeModel(tb, OneClassSVM, meta, s, svmWiring(features, vectors), map[string][]float64{
		"rows": w.rows, "alpha": w.alpha, "gamma": {w.gamma}, "reference_scaled": scaleRow(s, references), "reference_values": references,
	})
}

// plainSVM is SV1 to SV3 as they are written.
func plainSVM(s scaler, w svmWeights, z []float64) (inside, outside float64) {
	features := len(z)
	for i, a := range w.alpha {
		u := w.gamma * plainSquaredDistance(z, scaleRow(s, w.rows[i*features:][:features]))
		inside += a * math.Exp(-u)
		outside += a * -math.Expm1(-u)
	}
	return inside, outside
}

func TestSVMEqualsThePlainFormula(t *testing.T) {
	random := rand.New(rand.NewPCG(51, 52))
	for _, c := range []struct{ features, vectors int }{{7, 300}, {1, 1}, {3, 8}, {38, 9}, {87, 65}} {
		s := randomScaler(random, c.features)
		w := svmWeights{rows: randomRows(random, s, c.vectors), gamma: .5 / float64(c.features), alpha: make([]float64, c.vectors)}
		for i := range w.alpha {
			w.alpha[i] = random.ExpFloat64() + 1e-9
		}
		references := randomRows(random, s, 1)
		e := svmOf(t, s, w, references).open(t)
		for k := range 100 {
			sample := randomRows(random, s, 1)
			switch k % 4 {
			case 1: // near a support vector
				copy(sample, w.rows[:c.features])
				sample[0] += 1e-7
			case 2: // far from all
				sample[0] += 12 * s.scale[0]
			}
			z := scaleRow(s, sample)
			var v Verdict
			require.NoError(t, e.score(sample, ExplainAlways, &v))
			inside, outside := plainSVM(s, w, z)
			requireScore(t, outside/max(inside, 0x1p-100), v.Score)
			parts := make([]float64, c.features)
			for j := range z {
				d := z[j] - s.scale1(references[j], j)
				parts[j] = d * d
				require.Equal(t, float32(references[j]), v.Expected[j])
			}
			requireShares(t, parts, v.Contributions)
		}
		var v Verdict
		require.NoError(t, e.score(references, ExplainAlways, &v))
		require.Equal(t, make([]float32, c.features), v.Contributions, "SV4: nothing lies apart from the medians")
	}
}

// TestSVMAtItsEnds: a score of 0 on the one point that all support vectors share, no cancellation beside it, a finite score where
// every kernel vanishes (SV2, SV3).
func TestSVMAtItsEnds(t *testing.T) {
	s := scaler{mean: []float64{0}, scale: []float64{1}}
	e := svmOf(t, s, svmWeights{rows: []float64{2, 2, 2}, alpha: []float64{.25, .5, .25}, gamma: 1}, []float64{2}).open(t)
	score := func(x float64) float32 {
		var v Verdict
		require.NoError(t, e.score([]float64{x}, ExplainNever, &v))
		return v.Score
	}
	require.Equal(t, uint32(0), math.Float32bits(score(2)))
	d := 2 + 0x1p-40 - 2.0
	requireScore(t, math.Expm1(d*d), score(2+0x1p-40)) // (1 - K) / K = e^u - 1
	requireScore(t, math.Exp2(100), score(1e6))
	require.Equal(t, score(1e6), score(math.MaxFloat64))
	last := float32(0)
	for x := 2.0; x < 11; x += 1. / 64 { // SV2: a monotone function of the distance
		now := score(x)
		require.GreaterOrEqual(t, now, last, x)
		last = now
	}

	// The largest weights that are allowed, and a gamma with which exponents overflow: still a finite float32.
	w := svmWeights{rows: []float64{0, 1}, alpha: []float64{maxAlphaSum - 1, 1}, gamma: math.MaxFloat64}
	e = svmOf(t, s, w, []float64{0}).open(t)
	require.Equal(t, float32(maxAlphaSum*math.Exp2(100)), score(1e9))
	requireScore(t, 1/(maxAlphaSum-1), score(0))
}

func TestExpAndExpm1(t *testing.T) {
	worst := [2]float64{}
	try := func(x float64) {
		values := lanes{x, x}
		rest := expAndExpm1(&values)
		require.Equal(t, values[0], values[1])
		worst[0] = max(worst[0], ulps(values[0], math.Exp(x)))
		worst[1] = max(worst[1], ulps(rest[0], math.Expm1(x)))
		one := [1]float64{x}
		expm1All(one[:])
		require.Equal(t, math.Float64bits(one[0]), math.Float64bits(rest[0]))
	}
	random := rand.New(rand.NewPCG(53, 54))
	for range 100_000 {
		try(-40 * random.Float64())
		try(-650 * random.Float64())
		try(-math.Exp(-600 * random.Float64()))
	}
	require.LessOrEqual(t, worst[0], 4.0)
	require.LessOrEqual(t, worst[1], 4.0)
	t.Log("largest errors in units in the last place:", worst)

	ends := lanes{0, math.Copysign(0, -1), -800, math.Inf(-1), -1e300, -5e-324}
	rest := expAndExpm1(&ends)
	require.Equal(t, lanes{1, 1, ends[2], ends[2], ends[2], 1, 1, 1}, ends)
	require.Less(t, ends[2], 1e-303)
	require.Equal(t, lanes{0, rest[1], -1, -1, -1, -5e-324}, rest)
	require.Zero(t, rest[1])
}

// TestSVMSumsAreGoodToP2: the sums of many support vectors stay within the gap of P2 of the exact ones.
func TestSVMSumsAreGoodToP2(t *testing.T) {
	random := rand.New(rand.NewPCG(55, 56))
	s := randomScaler(random, 3)
	w := svmWeights{rows: randomRows(random, s, 5000), gamma: .3, alpha: make([]float64, 5000)}
	for i := range w.alpha {
		w.alpha[i] = random.Float64()
	}
	v := newOneClassSVM(s, 1, w, s.mean)
	for range 5 {
		z := scaleRow(s, randomRows(random, s, 1))
		in, out := new(big.Float).SetPrec(200), new(big.Float).SetPrec(200)
		for i, a := range w.alpha {
			u := w.gamma * plainSquaredDistance(z, scaleRow(s, w.rows[i*3:][:3]))
			in.Add(in, big.NewFloat(a*math.Exp(-u)))
			out.Add(out, big.NewFloat(a*-math.Expm1(-u)))
		}
		inside, outside := v.sums(z)
		exactIn, _ := in.Float64()
		exactOut, _ := out.Float64()
		require.InEpsilon(t, exactIn, inside, 1e-14)
		require.InEpsilon(t, exactOut, outside, 1e-14)
	}
}
