package anomaly

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

const smallSet = "../models/reference/ensemble-v1"

// addSet puts a copy of a set with another id, and another calibration, into a fleet.
func addSet(t *testing.T, fleet string, number int) (id string) {
	t.Helper()
	draft := filepath.Join(fleet, "sets", "draft")
	require.NoError(t, os.CopyFS(draft, os.DirFS(smallSet)))
	editJSON(t, filepath.Join(draft, "model_metadata.json"), func(m map[string]any) {
		m["training"].(map[string]any)["hyperparameters"].(map[string]any)["copy"] = strconv.Itoa(number)
		calibration := m["calibration"].(map[string]any)
		calibration["scores"] = calibration["scores"].([]any)[number+1:]
	})
	publish(t, draft)
	data, err := os.ReadFile(filepath.Join(draft, ManifestFile))
	require.NoError(t, err)
	digest := sha256.Sum256(data)
	id = hex.EncodeToString(digest[:])
	require.NoError(t, os.Rename(draft, filepath.Join(fleet, "sets", id[:16])))
	return id
}

// writeIndex writes fleet.json for these series, in this order.
func writeIndex(t *testing.T, fleet, global string, series ...[2]string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(smallSet, "model_metadata.json"))
	require.NoError(t, err)
	var metadata struct {
		Schema json.RawMessage `json:"feature_schema"`
	}
	require.NoError(t, json.Unmarshal(data, &metadata))
	list := []map[string]any{}
	for _, s := range series {
		list = append(list, map[string]any{"name": s[0], "model_set_id": s[1], "origin": "FLEET_ORIGIN_OWN"})
	}
	data, err = json.Marshal(map[string]any{"schema_version": 1, "feature_schema": metadata.Schema, "series": list, "global_set_id": global})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(fleet, FleetFile), data, 0o600))
}

func typicalRequest(series string) Request {
	return Request{
		Series: series, Detector: IsolationForest, Samples: [][]float64{{105.2, 10.5, 0.01, 1.2, 45.3, 58.7, 0.001}}, Explain: ExplainAlways,
	}
}

// TestFleetScoresWithTheSetOfTheSeries: the answer is that of the set alone, to the same bits, whatever was closed meanwhile (rules FL2,
// FL5).
func TestFleetScoresWithTheSetOfTheSeries(t *testing.T) {
	folder := t.TempDir()
	ids := []string{addSet(t, folder, 0), addSet(t, folder, 1), addSet(t, folder, 2)}
	writeIndex(t, folder, ids[2], [2]string{"a", ids[0]}, [2]string{"b", ids[1]})
	fleet, err := OpenFleet(folder, WithMaxSets(1))
	require.NoError(t, err)
	assert.Equal(t, 2, fleet.Len())
	var got, want Verdict
	var batch, wantBatch BatchVerdict
	for range 2 {
		for i, series := range []string{"a", "b", "others"} {
			alone, err := OpenModelSet(filepath.Join(folder, "sets", ids[i][:16]))
			require.NoError(t, err)
			require.NoError(t, fleet.Score(context.Background(), typicalRequest(series), &got))
			require.NoError(t, alone.Score(context.Background(), typicalRequest(series), &want))
			assert.Equal(t, want, got)
			request := BatchRequest{Series: series, Detector: Ensemble, Rows: make([]float64, 7*20), Layout: BatchSeries, Explain: ExplainAlways}
			require.NoError(t, fleet.ScoreBatch(context.Background(), request, &batch))
			require.NoError(t, alone.ScoreBatch(context.Background(), request, &wantBatch))
			assert.Equal(t, wantBatch, batch)
			set, err := fleet.Set(series)
			require.NoError(t, err)
			assert.Equal(t, ids[i], set.ID())
			assert.Equal(t, Published(alone.Metadata(IsolationForest)).String(), set.Metadata(IsolationForest).String())
		}
	}
	assert.Equal(t, 1, fleet.Counts().Open)
	assert.EqualValues(t, 6, fleet.Counts().Opened)
	require.NoError(t, fleet.Close())
	assert.Zero(t, fleet.Counts().Open)
}

// TestFleetRefusals are rules FL3 and FL4.
func TestFleetRefusals(t *testing.T) {
	folder := t.TempDir()
	good, damaged := addSet(t, folder, 0), addSet(t, folder, 1)
	require.NoError(t, os.WriteFile(filepath.Join(folder, "sets", damaged[:16], "isolation_forest.onnx"), []byte("x"), 0o600))
	moved := "00ff" + good[4:]
	require.NoError(t, os.CopyFS(filepath.Join(folder, "sets", moved[:16]), os.DirFS(filepath.Join(folder, "sets", good[:16]))))
	missing := "11ff" + good[4:]
	writeIndex(t, folder, "", [2]string{"damaged", damaged}, [2]string{"good", good}, [2]string{"missing", missing}, [2]string{"moved", moved})
	fleet, err := OpenFleet(folder)
	require.NoError(t, err)
	var refused []Code
	fleet.OnRefused(func(_ string, refusal *Error) { refused = append(refused, refusal.Code) })
	for _, test := range []struct {
		series string
		code   Code
		text   string
	}{
		{"", CodeInvalidRequest, ""},
		{string(make([]byte, 257)), CodeInvalidRequest, ""},
		{"nobody", CodeUnknownSeries, ""},
		{"damaged", CodeDetectorUnavailable, "DIGEST_MISMATCH"},
		{"damaged", CodeDetectorUnavailable, "DIGEST_MISMATCH"}, // remembered
		{"missing", CodeDetectorUnavailable, "MANIFEST_MISSING"},
		{"moved", CodeDetectorUnavailable, "DIGEST_MISMATCH"},
	} {
		err := AsError(fleet.Score(context.Background(), typicalRequest(test.series), new(Verdict)))
		assert.Equal(t, test.code, err.Code, test.series)
		assert.Equal(t, "series", err.Field)
		assert.Contains(t, err.Message, test.text)
	}
	assert.Equal(t, []Code{CodeDigestMismatch, CodeManifestMissing, CodeDigestMismatch}, refused)
	require.NoError(t, fleet.Score(context.Background(), typicalRequest("good"), new(Verdict)))
	other := typicalRequest("good")
	other.ModelSetID = damaged
	assert.ErrorIs(t, fleet.Score(context.Background(), other, new(Verdict)), CodeModelSetMismatch)

	_, err = OpenFleet(t.TempDir())
	assert.ErrorIs(t, err, CodeManifestMissing)
	_, err = OpenFleet(folder, WithBackend(ONNXRuntime))
	assert.ErrorIs(t, err, CodeInvalidRequest)
	assert.False(t, IsFleet(smallSet))
}

// TestFleetReopens is rule FL7: sets whose id stays are kept, the others are closed, and refused ones are tried again.
func TestFleetReopens(t *testing.T) {
	folder := t.TempDir()
	ids := []string{addSet(t, folder, 0), addSet(t, folder, 1)}
	missing := "00ff" + ids[0][4:]
	writeIndex(t, folder, "", [2]string{"a", ids[0]}, [2]string{"b", ids[1]}, [2]string{"c", missing})
	former, err := OpenFleet(folder)
	require.NoError(t, err)
	kept, err := former.Set("a")
	require.NoError(t, err)
	closed, err := former.Set("b")
	require.NoError(t, err)
	_, err = former.Set("c")
	require.ErrorIs(t, err, CodeDetectorUnavailable)

	third := addSet(t, folder, 2)
	writeIndex(t, folder, "", [2]string{"a", ids[0]}, [2]string{"c", third})
	next, err := former.Reopen(folder)
	require.NoError(t, err)
	next.TakeOver(former)
	assert.NotEqual(t, former.ID(), next.ID())
	again, err := next.Set("a")
	require.NoError(t, err)
	assert.Same(t, kept, again)
	_, err = next.Set("b")
	assert.ErrorIs(t, err, CodeUnknownSeries)
	set, err := next.Set("c")
	require.NoError(t, err)
	assert.Equal(t, third, set.ID())
	assert.NoError(t, closed.Score(context.Background(), typicalRequest("b"), new(Verdict)), "a call that uses it goes on")

	require.NoError(t, os.WriteFile(filepath.Join(folder, FleetFile), []byte(`{"schema_version": 2}`), 0o600))
	_, err = next.Reopen(folder)
	assert.ErrorIs(t, err, CodeSchemaFromFuture)
}

// TestFleetUnderLoad scores all series from several goroutines on one place, while the index is exchanged.
func TestFleetUnderLoad(t *testing.T) {
	folder := t.TempDir()
	ids := []string{addSet(t, folder, 0), addSet(t, folder, 1)}
	writeIndex(t, folder, "", [2]string{"a", ids[0]}, [2]string{"b", ids[1]})
	fleet, err := OpenFleet(folder, WithMaxSets(1))
	require.NoError(t, err)
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			var verdict Verdict
			for step := range 6 {
				series := []string{"a", "b"}[(worker+step/3)%2]
				assert.NoError(t, fleet.Score(context.Background(), typicalRequest(series), &verdict))
				assert.Greater(t, verdict.Score, float32(0))
			}
		})
	}
	next, err := fleet.Reopen(folder)
	require.NoError(t, err)
	next.TakeOver(fleet)
	all.Wait()
	assert.LessOrEqual(t, fleet.Counts().Open, 1)
}

// TestFleetOfOtherFeatures is refused set by set (rule FL4).
func TestFleetOfOtherFeatures(t *testing.T) {
	set := &ModelSet{id: "x", metadata: map[Detector]*anomalyv1.ModelMetadata{IsolationForest: {
		FeatureSchema: &anomalyv1.FeatureSchema{Features: []*anomalyv1.Feature{{Name: "latency", Unit: "s"}}},
	}}}
	fleet := &Fleet{index: &fleetIndex{features: [][2]string{{"latency", "ms"}}}}
	require.NotNil(t, fleet.check(set, "x"))
	assert.Equal(t, CodeMetadataInvalid, fleet.check(set, "x").Code)
	fleet.index.features[0][1] = "s"
	assert.Nil(t, fleet.check(set, "x"))
}
