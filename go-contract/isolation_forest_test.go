package anomaly

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// plainDepthSum is IF1 to IF3 as they are written.
func plainDepthSum(trees []tree, z []float64) float64 {
	sum := 0.0
	for _, t := range trees {
		at := 0
		for !t[at].isLeaf {
			if float64(float32(z[t[at].feature])) <= t[at].split {
				at = t[at].left
			} else {
				at = t[at].right
			}
		}
		sum += t[at].weight
	}
	return sum
}

func referenceTrees(t *testing.T) []tree {
	t.Helper()
	m, err := readONNX(readReferenceGraph(t, "isolation_forest.onnx"))
	require.NoError(t, err)
	trees, err := m.trees(7)
	require.NoError(t, err)
	return trees
}

func TestCompiledForestEqualsThePlainOne(t *testing.T) {
	f := openReference(t).models[IsolationForest].engine.(*isolationForest)
	trees := referenceTrees(t)
	random := rand.New(rand.NewPCG(5, 6))
	z, keys := make([]float64, 7), make([]int32, 7)
	check := func() {
		t.Helper()
		for j := range z {
			keys[j] = floatKey(float32(z[j]))
		}
		require.Equal(t, plainDepthSum(trees, z), f.depthSum(keys))
	}
	n := 20_000
	if raceEnabled {
		n /= 20
	}
	for range n {
		for j := range z {
			z[j] = 2 * random.NormFloat64()
		}
		check()
	}
	// On a split and on both sides of it, where a rounding mistake would show.
	for _, tree := range trees {
		for _, n := range tree {
			if n.isLeaf {
				continue
			}
			if raceEnabled && random.IntN(20) > 0 {
				continue
			}
			near := roundDown32(n.split)
			for _, x := range []float32{near, math.Nextafter32(near, -1e9), math.Nextafter32(near, 1e9)} {
				z[n.feature] = float64(x)
				check()
			}
		}
	}
}

func TestRoundDown32IsTheSameTest(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	for range 100_000 {
		split := math.Float64frombits(random.Uint64())
		x := math.Float32frombits(random.Uint32())
		if split != split || x != x {
			continue
		}
		require.Equal(t, float64(x) <= split, x <= roundDown32(split))
		require.Equal(t, x <= roundDown32(split), floatKey(x) <= floatKey(roundDown32(split)))
	}
	require.Equal(t, floatKey(0), floatKey(float32(math.Copysign(0, -1))), "F5: negative zero is zero")
}

func TestContributionsFallBackToDistances(t *testing.T) {
	// A forest of one leaf gains nothing from any replacement (IF7).
	leaf := tree{{left: 1, right: 2}, {isLeaf: true, weight: 1}, {isLeaf: true, weight: 1}}
	s := scaler{mean: []float64{0, 0}, scale: []float64{1, 2}}
	f := newIsolationForest(s, []tree{leaf}, -.1, 2, []float64{0, 0})
	var v Verdict
	require.NoError(t, f.score([]float64{1, 4}, ExplainAlways, &v))
	require.Equal(t, []float32{.2, .8}, v.Contributions)
	require.True(t, v.IsAnomaly)
	require.Equal(t, 1.0, v.DepthSum)
	require.NoError(t, f.score([]float64{0, 0}, ExplainAlways, &v))
	require.Equal(t, []float32{0, 0}, v.Contributions)
}

func TestTrainForestFindsOutliers(t *testing.T) {
	random := rand.New(rand.NewPCG(9, 10))
	rows := make([][]float64, 3000)
	for i := range rows {
		rows[i] = []float64{random.NormFloat64(), 5 + 2*random.NormFloat64(), 3} // the last feature does not vary
	}
	whole := openReference(t).Metadata(IsolationForest).GetFeatureSchema()
	schema := &anomalyv1.FeatureSchema{Name: "three", Version: 1, Features: whole.GetFeatures()[:3]}
	count := func(contamination float64) int {
		set, err := TrainForest(schema, rows, ForestOptions{Contamination: contamination})
		require.NoError(t, err)
		require.NoError(t, checkForestParameters(set.Metadata(IsolationForest)))
		require.True(t, isMidpoint(set.Metadata(IsolationForest).GetThreshold()))
		alarms := 0
		var v Verdict
		for _, row := range rows {
			require.NoError(t, set.Score(t.Context(), Request{Detector: IsolationForest, Samples: [][]float64{row}}, &v))
			require.Equal(t, float64(v.Score) > v.Threshold, v.IsAnomaly) // D1
			if v.IsAnomaly {
				alarms++
			}
		}
		require.NoError(t, set.Score(t.Context(), Request{Detector: IsolationForest, Samples: [][]float64{{9, 20, 3}}}, &v))
		require.True(t, v.IsAnomaly)
		return alarms
	}
	low, high := count(.01), count(.05)
	require.Greater(t, high, low, "D3: more contamination raises more alarms")
	require.InDelta(t, .01*3000, low, 25)
}

func TestTrainForestOnVeryLittle(t *testing.T) {
	schema := openReference(t).Metadata(IsolationForest).GetFeatureSchema()
	width := len(schema.GetFeatures())
	for _, n := range []int{1, 2, 3, 20} {
		rows := make([][]float64, n)
		for i := range rows {
			rows[i] = make([]float64, width)
			rows[i][0] = float64(i)
		}
		set, err := TrainForest(schema, rows, ForestOptions{})
		require.NoError(t, err)
		var v Verdict
		require.NoError(t, set.Score(t.Context(), Request{Detector: IsolationForest, Samples: rows[:1]}, &v))
		require.True(t, finite(float64(v.Score)))
	}
	_, err := TrainForest(schema, nil, ForestOptions{})
	require.ErrorIs(t, err, CodeNoSamples)
}
