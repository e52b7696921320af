package anomaly_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	anomaly "dwcp.internal/anomaly"
	"dwcp.internal/anomaly/internal/server"
)

// dial connects to the real server with a deadline that a busy machine keeps.
func dial(t testing.TB, address string, opts ...anomaly.SidecarOption) *anomaly.Sidecar {
	t.Helper()
	s, err := anomaly.DialSidecar(t.Context(), address, append([]anomaly.SidecarOption{anomaly.WithDeadline(20 * time.Second)}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func start(t testing.TB, change func(*server.Settings)) string {
	t.Helper()
	address, stop, err := startSidecar(change)
	require.NoError(t, err)
	t.Cleanup(stop)
	return address
}

var both = []anomaly.Detector{anomaly.IsolationForest, anomaly.LSTMAutoencoder}

// TestStreamOfTheRealServer: samples spread at random over requests and series give the bits of Score on their windows.
func TestStreamOfTheRealServer(t *testing.T) {
	set, err := anomaly.OpenModelSet(referenceSet)
	require.NoError(t, err)
	stream, err := dial(t, sidecarAddress).OpenStream(t.Context(), anomaly.StreamSettings{Detectors: both, Explain: anomaly.ExplainAlways})
	require.NoError(t, err)
	defer stream.Close()
	random := rand.New(rand.NewPCG(1, 2))
	windows := map[string][][]float64{}
	for len(windows["s0"]) < 30 {
		samples := make([]anomaly.StreamSample, 1+random.IntN(20))
		for i := range samples {
			values := make([]float64, 7)
			for j := range values {
				values[j] = 50 + 20*random.NormFloat64()
			}
			samples[i] = anomaly.StreamSample{Series: fmt.Sprint("s", random.IntN(3)), Values: values}
		}
		results, err := stream.Score(t.Context(), samples...)
		require.NoError(t, err)
		for i, r := range results {
			name := samples[i].Series
			windows[name] = append(windows[name], samples[i].Values)
			for k, d := range both {
				var want anomaly.Verdict
				err := set.Score(t.Context(), anomaly.Request{Detector: d, Samples: windows[name], Explain: anomaly.ExplainAlways}, &want)
				if err != nil {
					require.ErrorIs(t, r.Verdicts[k].Err, anomaly.CodeWindowTooShort)
				} else {
					require.Nil(t, r.Verdicts[k].Err)
					require.Equal(t, want, r.Verdicts[k].Verdict)
				}
			}
		}
	}
}

// TestEnsembleOfTheRealServer: calls, streams and a fallback give the verdict of the set itself, members included.
func TestEnsembleOfTheRealServer(t *testing.T) {
	set, err := anomaly.OpenModelSet(ensembleModels)
	require.NoError(t, err)
	address := start(t, func(s *server.Settings) { s.Models = ensembleModels })
	sidecar := dial(t, address, anomaly.WithModelSetID(set.ID()))
	require.Equal(t, 10, anomaly.WindowLength(sidecar, anomaly.Ensemble))
	fallback, err := anomaly.NewFallback(set, address, anomaly.WithDeadline(20*time.Second))
	require.NoError(t, err)
	defer fallback.Close()
	nobody, err := anomaly.NewFallback(set, "unix:"+filepath.Join(t.TempDir(), "nobody"))
	require.NoError(t, err)
	defer nobody.Close()
	settings := anomaly.StreamSettings{Detectors: []anomaly.Detector{anomaly.Ensemble, anomaly.IsolationForest}, Explain: anomaly.ExplainAlways}
	stream, err := sidecar.OpenStream(t.Context(), settings)
	require.NoError(t, err)
	defer stream.Close()

	random := rand.New(rand.NewPCG(3, 4))
	var window [][]float64
	var want, got anomaly.Verdict
	for i := range 30 {
		values := []float64{105.2, 10.5 + 3*random.NormFloat64(), 0.01, 1.2, 45.3, 58.7, 0.001}
		window = append(window, values)
		results, err := stream.Score(t.Context(), anomaly.StreamSample{Series: "a", Values: values})
		require.NoError(t, err)
		said := results[0].Verdicts
		require.Empty(t, said[1].Verdict.Members)
		if i < 9 {
			require.ErrorIs(t, said[0].Err, anomaly.CodeWindowTooShort)
			continue
		}
		request := anomaly.Request{Detector: anomaly.Ensemble, Samples: window, Explain: anomaly.ExplainAlways}
		require.NoError(t, set.Score(t.Context(), request, &want))
		require.Len(t, want.Members, 5)
		require.NoError(t, said[0].Err)
		require.Equal(t, want, said[0].Verdict)
		require.NoError(t, sidecar.Score(t.Context(), request, &got))
		require.Equal(t, want, got)
		for _, scorer := range []*anomaly.Fallback{fallback, nobody} {
			_, err := scorer.Score(t.Context(), request, &got)
			require.NoError(t, err)
			require.Equal(t, want, got)
		}
	}
	require.EqualValues(t, 21, fallback.Counts().Sidecar)
	require.EqualValues(t, 21, nobody.Counts().Local())

	// A Verdict that is used again says nothing of an earlier ensemble.
	require.NoError(t, sidecar.Score(t.Context(), anomaly.Request{Detector: anomaly.IsolationForest, Samples: window}, &got))
	require.Empty(t, got.Members)
	report := set.Golden(t.Context(), anomaly.Ensemble, sidecar)
	require.NoError(t, report.Err())
}

func TestLimitsOfTheRealServer(t *testing.T) {
	s := dial(t, start(t, func(s *server.Settings) { s.MaxStreams = 1; s.MaxSeries = 2 }), anomaly.WithRetries(1))
	settings := anomaly.StreamSettings{Detectors: both[:1]}
	stream, err := s.OpenStream(t.Context(), settings)
	require.NoError(t, err)
	_, err = s.OpenStream(t.Context(), settings)
	require.ErrorIs(t, err, anomaly.ErrOverloaded)
	for i := range 3 {
		_, err = stream.Score(t.Context(), anomaly.StreamSample{Series: fmt.Sprint(i), Values: make([]float64, 7)})
	}
	require.ErrorIs(t, err, anomaly.ErrOverloaded, "one series too many ends the stream")
}

// TestAStoppingServerIsUnavailable: and so are its streams, with what they did not answer.
func TestAStoppingServerIsUnavailable(t *testing.T) {
	address, stop, err := startSidecar(nil)
	require.NoError(t, err)
	s := dial(t, address)
	stream, err := s.OpenStream(t.Context(), anomaly.StreamSettings{Detectors: both[:1]})
	require.NoError(t, err)
	stop()
	_, err = stream.Receive(t.Context())
	require.ErrorIs(t, err, anomaly.ErrUnavailable)
	var v anomaly.Verdict
	sample := [][]float64{make([]float64, 7)}
	require.ErrorIs(t, s.Score(t.Context(), anomaly.Request{Detector: anomaly.IsolationForest, Samples: sample}, &v), anomaly.ErrUnavailable)
}

func TestReloadOfTheRealServer(t *testing.T) {
	folder := t.TempDir()
	require.NoError(t, os.CopyFS(folder, os.DirFS(referenceSet)))
	s := dial(t, start(t, func(s *server.Settings) { s.Models = folder }), anomaly.FollowModelSet(nil))
	id, changed, err := s.Reload(t.Context())
	require.NoError(t, err)
	assert.Equal(t, s.ID(), id)
	assert.False(t, changed)
	graph := filepath.Join(folder, "isolation_forest.onnx")
	require.NoError(t, os.WriteFile(graph, []byte("no graph"), 0o600))
	require.NoError(t, os.Chtimes(graph, time.Now(), time.Now().Add(time.Hour))) // however coarse the clock of the disk is
	_, _, err = s.Reload(t.Context())
	require.ErrorIs(t, err, anomaly.CodeDigestMismatch)
	assert.Equal(t, "isolation_forest.onnx", anomaly.AsError(err).Field)
}

// Streams are compared with calls, on a unix socket: `go test -run none -bench Sidecar .`.
func BenchmarkSidecarUnary(b *testing.B) {
	s := dial(b, sidecarAddress)
	values := [][]float64{{105.2, 10.5, 0.01, 1.2, 45.3, 58.7, 0.001}}
	var v anomaly.Verdict
	for b.Loop() {
		if err := s.Score(b.Context(), anomaly.Request{Detector: anomaly.IsolationForest, Samples: values}, &v); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSidecarStream(b *testing.B) {
	sample := anomaly.StreamSample{Series: "a", Values: []float64{105.2, 10.5, 0.01, 1.2, 45.3, 58.7, 0.001}}
	open := func(b *testing.B) *anomaly.Stream {
		stream, err := dial(b, sidecarAddress).OpenStream(b.Context(), anomaly.StreamSettings{Detectors: both[:1]})
		require.NoError(b, err)
		b.Cleanup(func() { stream.Close() })
		return stream
	}
	b.Run("score", func(b *testing.B) {
		stream := open(b)
		for b.Loop() {
			if _, err := stream.Score(b.Context(), sample); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("score-64", func(b *testing.B) { // that many callers share the stream
		stream := open(b)
		var callers sync.WaitGroup
		for range 64 {
			callers.Go(func() {
				for range b.N/64 + 1 {
					if _, err := stream.Score(b.Context(), sample); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		callers.Wait()
	})
	b.Run("send", func(b *testing.B) {
		stream := open(b)
		go func() {
			for range b.N {
				if stream.Send(context.Background(), sample) != nil {
					return
				}
			}
		}()
		for range b.N {
			if _, err := stream.Receive(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
}
