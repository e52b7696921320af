package anomaly

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

// golden samples of the reference set that have a score, as requests.
func goldenRequests(tb testing.TB, set *ModelSet, d Detector, explain Explain) []Request {
	tb.Helper()
	var requests []Request
	for _, c := range set.models[d].golden.GetCases() {
		if c.GetScore() == nil {
			continue
		}
		r := Request{Detector: d, Explain: explain}
		for _, s := range c.GetSamples() {
			r.Samples = append(r.Samples, s.GetValues())
		}
		requests = append(requests, r)
	}
	require.NotEmpty(tb, requests)
	return requests
}

func benchmarkScore(b *testing.B, d Detector, explain Explain) {
	set, err := OpenModelSet(referenceSet)
	require.NoError(b, err)
	requests := goldenRequests(b, set, d, explain)
	var verdict Verdict
	ctx := context.Background()
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if err := set.Score(ctx, requests[i%len(requests)], &verdict); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkForest(b *testing.B)          { benchmarkScore(b, IsolationForest, ExplainNever) }
func BenchmarkForestExplained(b *testing.B) { benchmarkScore(b, IsolationForest, ExplainAlways) }
func BenchmarkLSTM(b *testing.B)            { benchmarkScore(b, LSTMAutoencoder, ExplainNever) }
func BenchmarkLSTMExplained(b *testing.B)   { benchmarkScore(b, LSTMAutoencoder, ExplainAlways) }

func BenchmarkExpm1(b *testing.B) {
	values := make([]float64, 256)
	for range b.N {
		for i := range values {
			values[i] = float64(i)/16 - 8
		}
		expm1All(values)
	}
}

func BenchmarkOpenReferenceSet(b *testing.B) {
	b.ReportAllocs()
	for range b.N {
		_, err := OpenModelSet(referenceSet)
		require.NoError(b, err)
	}
}
