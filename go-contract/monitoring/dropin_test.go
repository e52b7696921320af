package monitoring

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zaptest"

	"dwcp.internal/anomaly"
	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

const referenceSet = "../../models/reference/v1"

// normalVector is a vector of the synthetic normal data.
func normalVector(random *rand.Rand) *MetricVector {
	return &MetricVector{
		Timestamp: time.Unix(1_700_000_000, 0), Bandwidth: 100 + 15*random.NormFloat64(), Latency: 10 + 2*random.NormFloat64(),
		PacketLoss: .005 * (random.ExpFloat64() + random.ExpFloat64()), Jitter: .5 * (random.ExpFloat64() + random.ExpFloat64()),
		CPUUsage: 20 + 20*random.Float64(), MemoryUsage: 30 + 25*random.Float64(), ErrorRate: .0005 * (random.ExpFloat64() + random.ExpFloat64()),
	}
}

func normalVectors(n int) []*MetricVector {
	random := rand.New(rand.NewPCG(1, 2))
	vectors := make([]*MetricVector, n)
	for i := range vectors {
		vectors[i] = normalVector(random)
	}
	return vectors
}

// fault is far outside normal data in its packet loss.
func fault() *MetricVector {
	v := normalVectors(1)[0]
	v.PacketLoss, v.Latency, v.ErrorRate = 4.5, 45, .9
	return v
}

func copySet(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	entries, err := os.ReadDir(referenceSet)
	require.NoError(t, err)
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(referenceSet, e.Name()))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, e.Name()), data, 0o600))
	}
	return dir
}

func TestForestAlarm(t *testing.T) {
	m, err := NewIsolationForestModel(filepath.Join(referenceSet, "isolation_forest.onnx"), zaptest.NewLogger(t))
	require.NoError(t, err)
	assert.Equal(t, "isolation_forest", m.Name())
	a, err := m.Detect(t.Context(), fault())
	require.NoError(t, err)
	require.NotNil(t, a)
	assert.Equal(t, 1.0, a.Confidence)
	assert.Equal(t, "isolation_forest", a.ModelType)
	assert.Contains(t, []string{"packet_loss", "latency", "error_rate"}, a.MetricName)
	assert.InDelta(t, math.Abs(a.Value-a.Expected), a.Deviation, 0)
	assert.Equal(t, fault().Timestamp, a.Timestamp)
	assert.Greater(t, a.Context["score"], .5)
	assert.Equal(t, 100, a.Context["trees"])
	assert.Equal(t, "native", a.Context["backend"])
	assert.NotContains(t, a.Context, "sidecar_error")
	assert.InDelta(t, 1, a.Context["calibrated_confidence"], .05)
}

func TestLSTMAnswersFromTheTenthVector(t *testing.T) {
	m, err := NewLSTMAutoencoderModel(filepath.Join(referenceSet, "lstm_autoencoder.onnx"), nil)
	require.NoError(t, err)
	assert.Equal(t, 10, m.windowSize)
	assert.Equal(t, "lstm_autoencoder", m.Name())
	for range 9 {
		a, err := m.Detect(t.Context(), fault())
		require.NoError(t, err)
		require.Nil(t, a)
	}
	for range 3 { // and every vector after that
		a, err := m.Detect(t.Context(), fault())
		require.NoError(t, err)
		require.NotNil(t, a)
		assert.Equal(t, 10, a.Context["window_size"])
		assert.Equal(t, a.Context["score"], a.Context["mse"])
		assert.Equal(t, 1.0, a.Confidence)
		assert.True(t, slices.ContainsFunc(dwcpFeatures, func(f *anomalyv1.Feature) bool { return f.GetName() == a.MetricName }))
	}
}

func TestMissingFileIsNotTrained(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "isolation_forest.onnx")
	forest, err := NewIsolationForestModel(missing, nil)
	require.NoError(t, err)
	_, err = forest.Detect(t.Context(), fault())
	require.EqualError(t, err, "model not trained")

	lstm, err := NewLSTMAutoencoderModel(t.TempDir(), nil) // a folder without a set
	require.NoError(t, err)
	for range 9 {
		a, err := lstm.Detect(t.Context(), fault())
		require.NoError(t, err)
		require.Nil(t, a)
	}
	_, err = lstm.Detect(t.Context(), fault())
	require.EqualError(t, err, "model not trained")
}

func TestDamagedFilesAreErrors(t *testing.T) {
	open := map[string]func(string) error{
		"isolation_forest.onnx": func(path string) error { _, err := NewIsolationForestModel(path, nil); return err },
		"lstm_autoencoder.onnx": func(path string) error { _, err := NewLSTMAutoencoderModel(path, nil); return err },
	}
	for name, construct := range open {
		t.Run(name, func(t *testing.T) {
			dir := copySet(t)
			path := filepath.Join(dir, name)
			require.NoError(t, construct(path))

			data, err := os.ReadFile(path)
			require.NoError(t, err)
			data[len(data)/2] ^= 1
			require.NoError(t, os.WriteFile(path, data, 0o600))
			require.ErrorIs(t, construct(path), anomaly.CodeDigestMismatch)
			require.NoError(t, os.Truncate(path, 10))
			require.ErrorIs(t, construct(path), anomaly.CodeDigestMismatch)
			require.NoError(t, os.Remove(filepath.Join(dir, "manifest.json")))
			require.ErrorIs(t, construct(path), anomaly.CodeManifestMissing)
			require.NoError(t, os.Remove(path))
			require.NoError(t, os.Symlink("nowhere", path))
			require.Error(t, construct(path), "a link to nowhere is damage, not a missing model")
		})
	}
}

func TestWrongGraphIsAnError(t *testing.T) {
	_, err := NewIsolationForestModel(filepath.Join(referenceSet, "lstm_autoencoder.onnx"), nil)
	require.ErrorContains(t, err, "not the graph of this detector")
}

func TestNotFiniteIsAnErrorThatNamesTheMetric(t *testing.T) {
	bad := fault()
	bad.Jitter = math.NaN()
	forest, err := NewIsolationForestModel(referenceSet, nil)
	require.NoError(t, err)
	lstm, err := NewLSTMAutoencoderModel(referenceSet, nil)
	require.NoError(t, err)
	for _, d := range []Detector{forest, lstm} {
		_, err := d.Detect(t.Context(), bad)
		require.ErrorIs(t, err, anomaly.CodeNotFinite)
		require.ErrorContains(t, err, "jitter")
		_, err = d.Detect(t.Context(), nil)
		require.Error(t, err)
	}
	assert.Empty(t, lstm.window, "it must not enter the window")
}

func TestTrainForestInProcess(t *testing.T) {
	m, err := NewIsolationForestModel(filepath.Join(t.TempDir(), "none.onnx"), nil)
	require.NoError(t, err)
	require.Error(t, m.Train(t.Context(), nil), "no data is an error")
	data := normalVectors(2000)
	before := *data[7]
	require.NoError(t, m.Train(t.Context(), data))
	assert.Equal(t, before, *data[7])
	for _, v := range data { // training keeps nothing of the caller's
		v.Bandwidth = math.NaN()
	}
	a, err := m.Detect(t.Context(), fault())
	require.NoError(t, err)
	require.NotNil(t, a)
	assert.Equal(t, anomaly.InProcess, a.Context["model_set_id"])
	alarms := 0
	for _, v := range normalVectors(3000)[2000:] {
		a, err := m.Detect(t.Context(), v)
		require.NoError(t, err)
		if a != nil {
			alarms++
		}
	}
	assert.Less(t, alarms, 40, "about 1 % of normal data")
}

func TestTrainLSTMInProcess(t *testing.T) {
	for name, path := range map[string]string{"recalibrated": referenceSet, "without a network": filepath.Join(t.TempDir(), "none.onnx")} {
		t.Run(name, func(t *testing.T) {
			m, err := NewLSTMAutoencoderModel(path, nil)
			require.NoError(t, err)
			require.Error(t, m.Train(t.Context(), normalVectors(9)), "fewer than windowSize rows is an error")
			require.NoError(t, m.Train(t.Context(), normalVectors(10)))
			vectors := normalVectors(1600)
			require.NoError(t, m.Train(t.Context(), vectors[:1200]))
			alarms := 0
			for _, v := range vectors[1200:] {
				a, err := m.Detect(t.Context(), v)
				require.NoError(t, err)
				if a != nil {
					alarms++
				}
			}
			// The threshold is the 95th percentile, so about 20 of 400. Overlapping windows make it a rough estimate.
			assert.Less(t, alarms, 80)
			a, err := m.Detect(t.Context(), fault())
			require.NoError(t, err)
			require.NotNil(t, a)
			assert.Equal(t, anomaly.InProcess, a.Context["model_set_id"])
		})
	}
}

func TestTrainLeavesTheArtifact(t *testing.T) {
	dir := copySet(t)
	set, err := anomaly.OpenModelSet(dir)
	require.NoError(t, err)
	m, err := NewIsolationForestModel(dir, nil)
	require.NoError(t, err)
	require.NoError(t, m.Train(t.Context(), normalVectors(300)))
	again, err := anomaly.OpenModelSet(dir)
	require.NoError(t, err)
	assert.Equal(t, set.ID(), again.ID())
}

func TestDetectConcurrently(t *testing.T) {
	forest, err := NewIsolationForestModel(referenceSet, nil)
	require.NoError(t, err)
	lstm, err := NewLSTMAutoencoderModel(referenceSet, nil)
	require.NoError(t, err)
	data := normalVectors(200)
	var workers sync.WaitGroup
	for range 4 {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for _, v := range data[:50] {
				for _, d := range []Detector{forest, lstm} {
					_, err := d.Detect(context.Background(), v)
					assert.NoError(t, err)
				}
			}
		}()
	}
	assert.NoError(t, forest.Train(context.Background(), data))
	assert.NoError(t, lstm.Train(context.Background(), data))
	workers.Wait()
}

func TestCancelledContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	m, err := NewIsolationForestModel(referenceSet, nil)
	require.NoError(t, err)
	_, err = m.Detect(ctx, fault())
	require.True(t, errors.Is(err, context.Canceled))
	require.ErrorIs(t, m.Train(ctx, normalVectors(10)), context.Canceled)
}

func TestPercentOfIsFinite(t *testing.T) {
	for _, c := range [][3]float64{{0, 0, 0}, {1, 0, 100}, {5, 10, 50}, {5, -10, 50}, {math.MaxFloat64, 1e-300, math.MaxFloat64}} {
		assert.Equal(t, c[2], percentOf(c[0], c[1]))
	}
}
