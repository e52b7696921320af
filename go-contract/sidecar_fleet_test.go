package anomaly_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	anomaly "dwcp.internal/anomaly"
	"dwcp.internal/anomaly/internal/server"
)

// serveFleet serves a fleet of two frozen sets of the same features: series `a` has the first, `b` the second.
func serveFleet(t *testing.T) (address string, sets map[string]*anomaly.ModelSet) {
	t.Helper()
	folder := t.TempDir()
	sets = map[string]*anomaly.ModelSet{}
	var series []map[string]any
	for _, s := range [][2]string{{"a", referenceSet}, {"b", filepath.Join(referenceSet, "../ensemble-v1")}} {
		data, err := os.ReadFile(filepath.Join(s[1], anomaly.ManifestFile))
		require.NoError(t, err)
		digest := sha256.Sum256(data)
		id := hex.EncodeToString(digest[:])
		require.NoError(t, os.CopyFS(filepath.Join(folder, "sets", id[:16]), os.DirFS(s[1])))
		series = append(series, map[string]any{"name": s[0], "model_set_id": id, "origin": "FLEET_ORIGIN_OWN"})
		sets[s[0]], err = anomaly.OpenModelSet(s[1])
		require.NoError(t, err)
	}
	schema := sets["a"].Metadata(anomaly.IsolationForest).GetFeatureSchema()
	features := []map[string]any{}
	for _, f := range schema.GetFeatures() {
		features = append(features, map[string]any{"name": f.GetName(), "unit": f.GetUnit()})
	}
	data, err := json.Marshal(map[string]any{"schema_version": 1, "feature_schema": map[string]any{"features": features}, "series": series})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(folder, anomaly.FleetFile), data, 0o600))
	fleet, err := anomaly.OpenFleet(folder)
	require.NoError(t, err)
	s, err := server.NewFleet(fleet, server.Settings{Models: folder, Listen: "127.0.0.1:0", Limits: server.DefaultLimits()},
		slog.New(slog.NewTextHandler(io.Discard, nil)))
	require.NoError(t, err)
	require.NoError(t, s.Start())
	t.Cleanup(func() { s.Stop(context.Background()) })
	return s.Addresses[0], sets
}

// TestSidecarWithSeries: at a fleet a Sidecar of one series is a Scorer of the set of that series, and requests may name others.
func TestSidecarWithSeries(t *testing.T) {
	address, sets := serveFleet(t)
	request := anomaly.Request{
		Detector: anomaly.IsolationForest, Samples: [][]float64{{105.2, 10.5, 0.01, 1.2, 45.3, 58.7, 0.001}}, Explain: anomaly.ExplainAlways,
	}
	rows := anomaly.BatchRequest{Detector: anomaly.IsolationForest, Rows: make([]float64, 14)}
	var got, want anomaly.Verdict
	var batch, wantBatch anomaly.BatchVerdict

	a := dial(t, address, anomaly.WithSeries("a"))
	assert.Equal(t, sets["a"].ID(), a.ID())
	assert.Len(t, a.FleetID(), 64)
	assert.NotNil(t, a.Metadata(anomaly.LSTMAutoencoder))
	for _, series := range []string{"", "a", "b"} {
		request.Series, rows.Series = series, series
		set := sets[series]
		if set == nil {
			set = sets["a"]
		}
		require.NoError(t, a.Score(t.Context(), request, &got))
		require.NoError(t, set.Score(t.Context(), request, &want))
		assert.Equal(t, want, got, "series %q", series)
		require.NoError(t, a.ScoreBatch(t.Context(), rows, &batch))
		require.NoError(t, set.ScoreBatch(t.Context(), rows, &wantBatch))
		assert.Equal(t, wantBatch.Scores, batch.Scores)
	}

	for _, plain := range []*anomaly.Sidecar{dial(t, address), dial(t, address, anomaly.FollowModelSet(nil))} {
		assert.Empty(t, plain.ID())
		request.Series = "b"
		require.NoError(t, plain.Score(t.Context(), request, &got))
		request.Series = ""
		assert.ErrorIs(t, plain.Score(t.Context(), request, &got), anomaly.CodeInvalidRequest)
		request.Series = "nobody"
		assert.ErrorIs(t, plain.Score(t.Context(), request, &got), anomaly.CodeUnknownSeries)
		request.Series, request.ModelSetID = "a", sets["b"].ID()
		assert.ErrorIs(t, plain.Score(t.Context(), request, &got), anomaly.CodeModelSetMismatch)
		request.ModelSetID = ""
	}
	_, err := anomaly.DialSidecar(t.Context(), address, anomaly.WithSeries("a"), anomaly.WithModelSetID(sets["b"].ID()))
	assert.ErrorIs(t, err, anomaly.CodeModelSetMismatch)

	stream, err := a.OpenStream(t.Context(), anomaly.StreamSettings{Detectors: []anomaly.Detector{anomaly.IsolationForest}})
	require.NoError(t, err)
	defer stream.Close()
	values := request.Samples[0]
	results, err := stream.Score(t.Context(), anomaly.StreamSample{Series: "a", Values: values},
		anomaly.StreamSample{Series: "b", Values: values}, anomaly.StreamSample{Series: "nobody", Values: values})
	require.NoError(t, err)
	assert.Equal(t, []string{sets["a"].ID(), sets["b"].ID(), a.FleetID()},
		[]string{results[0].ModelSetID, results[1].ModelSetID, results[2].ModelSetID})
	assert.NoError(t, results[1].Verdicts[0].Err)
	assert.ErrorIs(t, results[2].Verdicts[0].Err, anomaly.CodeUnknownSeries)
}
