package anomaly

import (
	"context"
	"math/rand/v2"
	"slices"
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

// benchmarkMade scores rows, or windows of them, one at a time with a model of a shape that the bars are set for.
func benchmarkMade(b *testing.B, m madeModel, explain Explain) {
	set := m.set(b)
	rows := slices.Collect(slices.Chunk(randomRows(rand.New(rand.NewPCG(1, 2)), m.scaler(), 63+m.steps()), len(m.scaler().mean)))
	request := Request{Detector: m.detector, Explain: explain}
	var verdict Verdict
	ctx := context.Background()
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		request.Samples = rows[i%64:][:m.steps()]
		if err := set.Score(ctx, request, &verdict); err != nil {
			b.Fatal(err)
		}
	}
}

func benchmarkDense(b *testing.B, activation string, explain Explain, units ...int) {
	benchmarkMade(b, makeDense(b, rand.New(rand.NewPCG(1, 2)), 87, activation, units...), explain)
}

func BenchmarkDense64ReLU(b *testing.B) {
	benchmarkDense(b, activationReLU, ExplainNever, 64, 32, 16, 8, 16, 32, 64)
}
func BenchmarkDense64Tanh(b *testing.B) {
	benchmarkDense(b, activationTanh, ExplainNever, 64, 32, 16, 8, 16, 32, 64)
}
func BenchmarkDense128ReLU(b *testing.B) {
	benchmarkDense(b, activationReLU, ExplainNever, 128, 64, 32, 16, 32, 64, 128)
}
func BenchmarkDense128Tanh(b *testing.B) {
	benchmarkDense(b, activationTanh, ExplainNever, 128, 64, 32, 16, 32, 64, 128)
}
func BenchmarkDense128Explained(b *testing.B) {
	benchmarkDense(b, activationTanh, ExplainAlways, 128, 64, 32, 16, 32, 64, 128)
}

// benchmarkNeighbors has 5,000 training rows. What is stored of them is made up: fitting them costs more than scoring.
func benchmarkNeighbors(b *testing.B, features int, explain Explain) {
	random := rand.New(rand.NewPCG(1, 2))
	s := randomScaler(random, features)
	w := neighborWeights{rows: randomRows(random, s, 5000), kDistance: make([]float64, 5000), density: make([]float64, 5000)}
	for i := range w.density {
		w.kDistance[i], w.density[i] = 1, 1
	}
	benchmarkMade(b, neighborsOf(b, s, 20, w), explain)
}

func BenchmarkNeighbors7(b *testing.B)          { benchmarkNeighbors(b, 7, ExplainNever) }
func BenchmarkNeighbors7Explained(b *testing.B) { benchmarkNeighbors(b, 7, ExplainAlways) }
func BenchmarkNeighbors87(b *testing.B)         { benchmarkNeighbors(b, 87, ExplainNever) }

// benchmarkSVM has 5,000 support vectors.
func benchmarkSVM(b *testing.B, features int, explain Explain) {
	benchmarkMade(b, makeSVM(b, rand.New(rand.NewPCG(1, 2)), features, 5000), explain)
}

func BenchmarkSVM7(b *testing.B)          { benchmarkSVM(b, 7, ExplainNever) }
func BenchmarkSVM7Explained(b *testing.B) { benchmarkSVM(b, 7, ExplainAlways) }
func BenchmarkSVM87(b *testing.B)         { benchmarkSVM(b, 87, ExplainNever) }

// benchmarkMahalanobis has windows of the given number of samples, or none.
func benchmarkMahalanobis(b *testing.B, timesteps, features int, explain Explain) {
	benchmarkMade(b, makeMahalanobis(b, rand.New(rand.NewPCG(1, 2)), timesteps, features), explain)
}

func BenchmarkMahalanobis7(b *testing.B)            { benchmarkMahalanobis(b, 0, 7, ExplainNever) }
func BenchmarkMahalanobis7x5(b *testing.B)          { benchmarkMahalanobis(b, 5, 7, ExplainNever) }
func BenchmarkMahalanobis7x5Explained(b *testing.B) { benchmarkMahalanobis(b, 5, 7, ExplainAlways) }
func BenchmarkMahalanobis38x5(b *testing.B)         { benchmarkMahalanobis(b, 5, 38, ExplainNever) }
func BenchmarkMahalanobis38x5Explained(b *testing.B) {
	benchmarkMahalanobis(b, 5, 38, ExplainAlways)
}

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
