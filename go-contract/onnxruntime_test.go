//go:build onnxruntime && cgo

package anomaly

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestONNXRuntimeEqualsNative: every bit of every answer, single and in batches, with one thread and with two (rule P2).
func TestONNXRuntimeEqualsNative(t *testing.T) {
	for _, native := range openReferences(t) {
		requireONNXRuntimeEqualsNative(t, native)
	}
}

func requireONNXRuntimeEqualsNative(t *testing.T, native *ModelSet) {
	t.Helper()
	random := rand.New(rand.NewPCG(11, 12))
	for _, threads := range []int{1, 2} {
		set, err := OpenModelSet(native.Dir(), WithBackend(ONNXRuntime), WithONNXRuntimeThreads(threads, 1))
		require.NoError(t, err) // and with it the golden vectors of the set
		require.Equal(t, native.Detectors(), set.Detectors())
		for _, d := range set.Detectors() {
			if homes(t)[d] == native {
				require.NoError(t, runVectors(t, set, d).Err())
			}
			window := WindowLength(set, d)
			rows := make([]float64, 0, 7*500)
			for range 500 / window * window {
				for j, x := range plainRow {
					rows = append(rows, x*(1+random.NormFloat64()*float64(j+1)/10))
				}
			}
			for _, layout := range []BatchLayout{BatchWindows, BatchSeries} {
				for _, explain := range []Explain{ExplainAlways, ExplainAlarms, ExplainNever} {
					requireSameBatch(t, native, set, BatchRequest{Detector: d, Rows: rows, Layout: layout, Explain: explain})
				}
			}
		}
		require.NoError(t, set.Close())
	}
}

// requireSameBatch demands the same bits from two backends, and gives them.
func requireSameBatch(t *testing.T, native, set *ModelSet, request BatchRequest) (want BatchVerdict) {
	t.Helper()
	var got BatchVerdict
	require.NoError(t, native.ScoreBatch(t.Context(), request, &want))
	require.NoError(t, set.ScoreBatch(t.Context(), request, &got))
	require.Equal(t, want, got, "%s of %d features", request.Detector, len(native.Metadata(request.Detector).GetFeatureNames()))
	return want
}

// TestONNXRuntimeEqualsNativeOnMadeModels: the same for models made up, with batches of more items than one run
// takes, and with samples between training rows that tie (rules P2, W4, LF2).
func TestONNXRuntimeEqualsNativeOnMadeModels(t *testing.T) {
	random := rand.New(rand.NewPCG(71, 72))
	grid := scaler{mean: []float64{0, 0, 0}, scale: []float64{1, 1, 1}}
	gridRows := make([]float64, 3*200)
	for i := range gridRows {
		gridRows[i] = float64(random.IntN(3))
	}
	models := append(madeModels(t),
		neighborsOf(t, grid, 5, fitNeighbors(grid, gridRows, 5)),
		makeDense(t, random, 87, activationTanh, 64, 32, 16, 8, 16, 32, 64),
		makeNeighbors(t, random, 38, 200, 20), makeSVM(t, random, 87, 100),
		makeClassifier(t, random, 100, 8, 16, 8, 4))
	for _, m := range models {
		native := m.set(t)
		for _, threads := range []int{1, 2} {
			e, err := newONNXRuntimeEngine(m.graph, m.meta, options{intraThreads: threads, interThreads: 1})
			require.NoError(t, err)
			set := inMemory(m.detector, m.meta, e)
			features := int(m.meta.GetNFeatures())
			rows := randomRows(random, m.scaler(), 300)
			for i := range 150 { // half of them on a coarse grid, some far away
				for j := range features {
					x := &rows[i*features+j]
					*x = math.Round(*x*float64(1+i%3)) * float64(1+i/30)
				}
			}
			for _, far := range farSamples(features) {
				rows = append(rows, m.window(far)...)
			}
			for _, explain := range []Explain{ExplainAlways, ExplainAlarms, ExplainNever} {
				want := requireSameBatch(t, native, set, BatchRequest{Detector: m.detector, Rows: rows, Explain: explain})
				var one Verdict
				samples := slices.Collect(slices.Chunk(rows[:m.steps()*features], features))
				require.NoError(t, set.Score(t.Context(), Request{Detector: m.detector, Samples: samples, Explain: explain}, &one))
				require.Equal(t, want.Scores[0], one.Score)
			}
			require.NoError(t, set.Close())
		}
	}
}

// TestEnsembleOfONNXRuntimeEqualsNative: members are scored by the backend of their set; what is joined has the same bits (EN4).
func TestEnsembleOfONNXRuntimeEqualsNative(t *testing.T) {
	native := openEnsemble(t)
	set, err := OpenModelSet(ensembleFolder(t), WithBackend(ONNXRuntime))
	require.NoError(t, err)
	defer set.Close()
	var rows []float64
	for _, samples := range ensembleWindows(t) {
		rows = append(rows, slices.Concat(samples[len(samples)-10:]...)...)
		for _, explain := range []Explain{ExplainAlways, ExplainAlarms, ExplainNever} {
			var want, got Verdict
			request := Request{Detector: Ensemble, Samples: samples, Explain: explain}
			require.NoError(t, native.Score(t.Context(), request, &want))
			require.NoError(t, set.Score(t.Context(), request, &got))
			require.Equal(t, want, got)
		}
	}
	for _, layout := range []BatchLayout{BatchWindows, BatchSeries} {
		for _, explain := range []Explain{ExplainAlways, ExplainAlarms, ExplainNever} {
			requireSameBatch(t, native, set, BatchRequest{Detector: Ensemble, Rows: rows, Layout: layout, Explain: explain})
		}
	}
}
