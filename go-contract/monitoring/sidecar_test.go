package monitoring

import (
	"context"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"dwcp.internal/anomaly"
	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// recorder is a sidecar that answers with a fixed verdict and remembers what it was sent.
type recorder struct {
	anomalyv1.UnimplementedScoringServiceServer
	id      string
	delay   time.Duration
	request atomic.Pointer[anomalyv1.ScoreRequest]
}

func (r *recorder) Score(ctx context.Context, request *anomalyv1.ScoreRequest) (*anomalyv1.ScoreResponse, error) {
	r.request.Store(request)
	select {
	case <-time.After(r.delay):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return &anomalyv1.ScoreResponse{ModelSetId: r.id, Verdict: &anomalyv1.Verdict{
		Score: 42, IsAnomaly: true, Threshold: 1, PValue: .001, Level: anomalyv1.Level_LEVEL_CRITICAL, TopFeature: "jitter",
		Contributions: []float32{0, 0, 0, 1, 0, 0, 0}, Expected: []float32{1, 2, 3, 0, 5, 6, 7},
	}}, nil
}

func serve(t *testing.T, r *recorder) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s.sock")
	listener, err := net.Listen("unix", path)
	require.NoError(t, err)
	server := grpc.NewServer()
	anomalyv1.RegisterScoringServiceServer(server, r)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return "unix://" + path
}

func referenceID(t *testing.T) string {
	t.Helper()
	set, err := anomaly.OpenModelSet(referenceSet)
	require.NoError(t, err)
	return set.ID()
}

// detectTenth fills the window and gives the alarm of the tenth vector.
func detectTenth(t *testing.T, m *LSTMAutoencoderModel) *Anomaly {
	t.Helper()
	var a *Anomaly
	for range 10 {
		var err error
		a, err = m.Detect(t.Context(), fault())
		require.NoError(t, err)
	}
	require.NotNil(t, a)
	return a
}

func TestSidecarIsAskedWithTheWindow(t *testing.T) {
	r := &recorder{id: referenceID(t)}
	t.Setenv(sidecarAddressVariable, serve(t, r))
	m, err := NewLSTMAutoencoderModel(referenceSet, nil)
	require.NoError(t, err)
	var a *Anomaly
	for range 20 { // the deadline is short; a busy machine may miss it now and then
		if a = detectTenth(t, m); a.Context["backend"] == "sidecar" {
			break
		}
	}
	require.Equal(t, "sidecar", a.Context["backend"])
	assert.NotContains(t, a.Context, "sidecar_error")
	assert.Equal(t, 42.0, a.Context["mse"])
	assert.Equal(t, "jitter", a.MetricName)
	assert.Equal(t, 0.0, a.Expected)
	assert.Len(t, r.request.Load().GetSamples(), 10)
	assert.Equal(t, r.id, r.request.Load().GetModelSetId())

	require.NoError(t, m.UseSidecar(""))
	assert.Equal(t, "native", detectTenth(t, m).Context["backend"])
}

func TestFallsBackAndSaysSo(t *testing.T) {
	for name, test := range map[string]struct {
		address string
		because string
	}{
		"nobody there": {"unix://" + filepath.Join(t.TempDir(), "none"), "UNAVAILABLE"},
		"too slow":     {serve(t, &recorder{id: referenceID(t), delay: time.Second}), "DEADLINE_EXCEEDED"},
		"another set":  {serve(t, &recorder{id: "other"}), "MODEL_SET_MISMATCH"},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := NewIsolationForestModel(referenceSet, nil)
			require.NoError(t, err)
			require.NoError(t, m.UseSidecar(test.address))
			started := time.Now()
			a, err := m.Detect(t.Context(), fault())
			require.NoError(t, err)
			require.NotNil(t, a, "an error is never reported as normal")
			assert.Less(t, time.Since(started), 900*time.Millisecond, "the deadline is 250 ms")
			assert.Equal(t, "native", a.Context["backend"])
			assert.Contains(t, a.Context["sidecar_error"], test.because)
			assert.NotEqual(t, 42.0, a.Context["score"])
		})
	}
}

func TestTrainingLeavesTheSidecar(t *testing.T) {
	r := &recorder{id: referenceID(t)}
	m, err := NewIsolationForestModel(referenceSet, nil)
	require.NoError(t, err)
	require.NoError(t, m.UseSidecar(serve(t, r)))
	require.NoError(t, m.Train(t.Context(), normalVectors(300)))
	a, err := m.Detect(t.Context(), fault())
	require.NoError(t, err)
	require.NotNil(t, a)
	assert.Equal(t, "native", a.Context["backend"])
	assert.Nil(t, r.request.Load())
}
