//go:build onnxruntime && cgo

package anomaly

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestONNXRuntimeEqualsNative: every bit of every answer, single and in batches, with one thread and with two (rule P2).
func TestONNXRuntimeEqualsNative(t *testing.T) {
	native := openReference(t)
	random := rand.New(rand.NewPCG(11, 12))
	for _, threads := range []int{1, 2} {
		set, err := OpenModelSet(referenceSet, WithBackend(ONNXRuntime), WithONNXRuntimeThreads(threads, 1))
		require.NoError(t, err) // and with it the golden vectors of the set
		require.Equal(t, Detectors(), set.Detectors())
		for _, d := range set.Detectors() {
			require.NoError(t, runVectors(t, set, d).Err())
			rows := make([]float64, 0, 7*500)
			for range 500 {
				for j, x := range plainRow {
					rows = append(rows, x*(1+random.NormFloat64()*float64(j+1)/10))
				}
			}
			for _, layout := range []BatchLayout{BatchWindows, BatchSeries} {
				for _, explain := range []Explain{ExplainAlways, ExplainAlarms, ExplainNever} {
					var want, got BatchVerdict
					request := BatchRequest{Detector: d, Rows: rows, Layout: layout, Explain: explain}
					require.NoError(t, native.ScoreBatch(t.Context(), request, &want))
					require.NoError(t, set.ScoreBatch(t.Context(), request, &got))
					require.Equal(t, want, got)
				}
			}
		}
		require.NoError(t, set.Close())
	}
}
