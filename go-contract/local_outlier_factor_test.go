package anomaly

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// plainNeighbors is LF2: all rows sorted by distance, of equals the first in training first. skip is left out, -1 for none.
func plainNeighbors(s scaler, rows []float64, z []float64, k, skip int) (order []int, d2 []float64) {
	features := len(s.mean)
	for i := range len(rows) / features {
		d2 = append(d2, plainSquaredDistance(z, scaleRow(s, rows[i*features:][:features])))
		if i != skip {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(d2[a], d2[b]) })
	return order[:k], d2
}

// fitNeighbors is LF3 for the training rows, each without itself. A single row has itself as neighbour.
func fitNeighbors(s scaler, rows []float64, k int) neighborWeights {
	features := len(s.mean)
	count := len(rows) / features
	w := neighborWeights{rows: rows, kDistance: make([]float64, count), density: make([]float64, count)}
	orders, distances := make([][]int, count), make([][]float64, count)
	for i := range count {
		skip := i
		if k == count {
			skip = -1
		}
		orders[i], distances[i] = plainNeighbors(s, rows, scaleRow(s, rows[i*features:][:features]), k, skip)
		w.kDistance[i] = math.Sqrt(distances[i][orders[i][k-1]])
	}
	for i := range count {
		reach := 0.0
		for _, o := range orders[i] {
			reach += max(w.kDistance[o], math.Sqrt(distances[i][o]))
		}
		w.density[i] = 1 / (reach/float64(k) + 1e-10)
	}
	return w
}

func makeNeighbors(tb testing.TB, random *rand.Rand, features, rows, k int) madeModel {
	tb.Helper()
	s := randomScaler(random, features)
	return neighborsOf(tb, s, k, fitNeighbors(s, randomRows(random, s, rows), k))
}

func neighborsOf(tb testing.TB, s scaler, k int, w neighborWeights) madeModel {
	tb.Helper()
	contamination, rows := .01, len(w.density)
	meta := &anomalyv1.ModelMetadata{
		Neighbors: &anomalyv1.NeighborParameters{NNeighbors: uint32(k), Rows: uint32(rows)}, Contamination: &contamination, Threshold: 1.5,
	}
	return makeModel(tb, LocalOutlierFactor, meta, s, neighborWiring(len(s.mean), rows, k),
		map[string][]float64{"rows": w.rows, "k_distance": w.kDistance, "density": w.density})
}

// requirePlainNeighbors compares a verdict with LF2 to LF6 as they are written.
func requirePlainNeighbors(t *testing.T, s scaler, k int, w neighborWeights, sample []float64, e engine) {
	t.Helper()
	var v Verdict
	require.NoError(t, e.score(sample, ExplainAlways, &v))
	z := scaleRow(s, sample)
	near, d2 := plainNeighbors(s, w.rows, z, k, -1)
	features := len(z)
	reach, density := 0.0, 0.0
	parts, expected := make([]float64, features), make([]float64, features)
	for _, o := range near {
		reach += max(w.kDistance[o], math.Sqrt(d2[o])) / float64(k)
		density += w.density[o] / float64(k)
		for j, x := range w.rows[o*features:][:features] {
			d := z[j] - s.scale1(x, j)
			parts[j] += d * d
			expected[j] += x / float64(k)
		}
	}
	requireScore(t, density*(reach+1e-10), v.Score)
	requireShares(t, parts, v.Contributions)
	for j := range expected {
		require.InDelta(t, expected[j], v.Expected[j], 1e-6*(1+math.Abs(expected[j])), "the neighbours are others")
	}
}

func TestNeighborsEqualThePlainFormula(t *testing.T) {
	random := rand.New(rand.NewPCG(41, 42))
	for _, c := range []struct{ features, rows, k int }{{7, 300, 20}, {1, 17, 1}, {3, 9, 9}, {87, 40, 7}, {2, 64, 63}} {
		s := randomScaler(random, c.features)
		w := fitNeighbors(s, randomRows(random, s, c.rows), c.k)
		e := neighborsOf(t, s, c.k, w).open(t)
		for range 50 {
			requirePlainNeighbors(t, s, c.k, w, randomRows(random, s, 1), e)
		}
		for i := range min(c.rows, 20) { // on a training row
			requirePlainNeighbors(t, s, c.k, w, w.rows[i*c.features:][:c.features], e)
		}
	}
}

// TestTiesGoToTheFirstInTraining: on a grid most distances tie, and duplicates lie in each cell (LF2).
func TestTiesGoToTheFirstInTraining(t *testing.T) {
	random := rand.New(rand.NewPCG(43, 44))
	s := scaler{mean: []float64{0, 0, 0}, scale: []float64{1, 1, 1}}
	for _, k := range []int{1, 2, 5, 20, 100} {
		for range 20 {
			rows := make([]float64, 3*200)
			for i := range rows {
				rows[i] = float64(random.IntN(3))
			}
			w := fitNeighbors(s, rows, k)
			e := neighborsOf(t, s, k, w).open(t).(*localOutlierFactor)
			for range 10 {
				z := []float64{float64(random.IntN(3)), float64(random.IntN(3)), float64(random.IntN(3))}
				want, _ := plainNeighbors(s, rows, z, k, -1)
				heap := make(neighborHeap, 0, k)
				heap.nearest(e.rows, z)
				got := make([]int, 0, k)
				for _, n := range heap {
					got = append(got, int(n.row))
				}
				require.Equal(t, want, got)
				requirePlainNeighbors(t, s, k, w, z, e)
			}
		}
	}
}

// TestNeighborsInAnyOrder: rows that come nearer and nearer, or the reverse, take every path through the heap.
func TestNeighborsInAnyOrder(t *testing.T) {
	s := scaler{mean: []float64{0}, scale: []float64{1}}
	for _, sign := range []float64{1, -1} {
		rows := make([]float64, 100)
		for i := range rows {
			rows[i] = sign * float64(i)
		}
		z := []float64{sign * 99}
		for _, k := range []int{1, 2, 3, 7, 99, 100} {
			for _, at := range []float64{0, 99, 50} {
				z[0] = sign * at
				want, _ := plainNeighbors(s, rows, z, k, -1)
				heap := make(neighborHeap, 0, k)
				heap.nearest(newTrainingRows(s, rows), z)
				require.Len(t, heap, k)
				for i, n := range heap {
					require.Equal(t, want[i], int(n.row))
				}
			}
		}
	}
}

func TestNeighborsOnIdenticalRows(t *testing.T) {
	s := scaler{mean: []float64{1, 2}, scale: []float64{1, 1}}
	rows := make([]float64, 0, 2*30)
	for range 30 {
		rows = append(rows, 5, 6)
	}
	w := fitNeighbors(s, rows, 10)
	require.Equal(t, 1e10, w.density[0])
	e := neighborsOf(t, s, 10, w).open(t)
	var v Verdict
	require.NoError(t, e.score([]float64{5, 6}, ExplainAlways, &v))
	require.Equal(t, float32(1), v.Score)
	require.Equal(t, []float32{0, 0}, v.Contributions, "LF5: nothing lies apart")
	require.Equal(t, []float32{5, 6}, v.Expected)
	require.NoError(t, e.score([]float64{8, 10}, ExplainAlways, &v))
	require.Equal(t, float32(5e10), v.Score)
	require.Equal(t, []float32{.36, .64}, v.Contributions)
}

// TestNeighborFormulaByHand: three rows on a line, worked out with pencil and paper.
func TestNeighborFormulaByHand(t *testing.T) {
	s := scaler{mean: []float64{0}, scale: []float64{1}}
	w := fitNeighbors(s, []float64{0, 1, 3}, 1)
	require.Equal(t, []float64{1, 1, 2}, w.kDistance)
	e := neighborsOf(t, s, 1, w).open(t)
	var v Verdict
	require.NoError(t, e.score([]float64{6}, ExplainAlways, &v))
	// The neighbour is 3, at a distance of 3; its own neighbour is 1, at 2: density 1/2, reach 3.
	require.Equal(t, float32(1.5), v.Score)
	require.Equal(t, []float32{3}, v.Expected)
	require.Equal(t, []float32{1}, v.Contributions)
}
