package anomaly

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func repeat(row []float64, n int) [][]float64 {
	rows := make([][]float64, n)
	for i := range rows {
		rows[i] = row
	}
	return rows
}

var plainRow = []float64{100, 10, .01, 1, 30, 40, .001}

// rowWith is plainRow with another value of one feature.
func rowWith(j int, x float64) []float64 {
	row := append([]float64(nil), plainRow...)
	row[j] = x
	return row
}

func TestRequestsAreCheckedInOrder(t *testing.T) {
	set := openReference(t)
	nan, inf := math.NaN(), math.Inf(1)
	for _, c := range []struct {
		detector Detector
		samples  [][]float64
		code     Code
		field    string
	}{
		{99, nil, CodeUnknownDetector, "detector"},
		{IsolationForest, nil, CodeNoSamples, "samples"},
		{IsolationForest, repeat(nil, 257), CodeTooManySamples, "samples"},
		{IsolationForest, [][]float64{{1}}, CodeWrongWidth, "samples[0]"},
		{IsolationForest, [][]float64{nil}, CodeWrongWidth, "samples[0]"},
		{IsolationForest, [][]float64{rowWith(2, nan)}, CodeNotFinite, "samples[0].packet_loss"},
		{IsolationForest, [][]float64{rowWith(6, -inf), plainRow}, CodeNotFinite, "samples[0].error_rate"}, // W3: also what is not scored
		{IsolationForest, [][]float64{rowWith(6, inf), {1}}, CodeNotFinite, "samples[0].error_rate"},
		{IsolationForest, [][]float64{{1}, rowWith(0, nan)}, CodeWrongWidth, "samples[0]"},
		{LSTMAutoencoder, repeat(plainRow, 9), CodeWindowTooShort, "samples"},
		{LSTMAutoencoder, [][]float64{rowWith(0, nan)}, CodeNotFinite, "samples[0].bandwidth"}, // values before the window
	} {
		var v Verdict
		err := set.Score(t.Context(), Request{Detector: c.detector, Samples: c.samples}, &v)
		require.ErrorIs(t, err, c.code)
		assert.Equal(t, c.field, AsError(err).Field)
	}
}

func TestBatchesAreCheckedInOrder(t *testing.T) {
	set := openReference(t)
	bad := make([]float64, 14)
	bad[8] = math.Inf(-1)
	for _, c := range []struct {
		request BatchRequest
		code    Code
		field   string
	}{
		{BatchRequest{Detector: 99}, CodeUnknownDetector, "detector"},
		{BatchRequest{Detector: IsolationForest}, CodeNoSamples, "rows"},
		{BatchRequest{Detector: IsolationForest, Rows: make([]float64, 8)}, CodeInvalidRequest, "rows"},
		{BatchRequest{Detector: IsolationForest, Rows: make([]float64, 7*(MaxBatchItems+1))}, CodeBatchTooLarge, "rows"},
		{BatchRequest{Detector: IsolationForest, Rows: make([]float64, 7*1_200_000)}, CodeBatchTooLarge, "rows"},
		{BatchRequest{Detector: IsolationForest, Rows: bad}, CodeNotFinite, "rows[1].latency"},
		{BatchRequest{Detector: LSTMAutoencoder, Rows: bad}, CodeNotFinite, "rows[1].latency"},
		{BatchRequest{Detector: LSTMAutoencoder, Rows: make([]float64, 7*9)}, CodeWindowTooShort, "rows"},
		{BatchRequest{Detector: LSTMAutoencoder, Rows: make([]float64, 7*15)}, CodeWindowTooShort, "rows"},
		{BatchRequest{Detector: LSTMAutoencoder, Rows: make([]float64, 7*9), Layout: BatchSeries}, CodeWindowTooShort, "rows"},
		{BatchRequest{Detector: LSTMAutoencoder, Rows: make([]float64, 70), Layout: 7}, CodeInvalidRequest, "layout"},
	} {
		var v BatchVerdict
		err := set.ScoreBatch(t.Context(), c.request, &v)
		require.ErrorIs(t, err, c.code)
		assert.Equal(t, c.field, AsError(err).Field)
	}
}

// referenceModel is a detector of a frozen set.
type referenceModel struct {
	set      *ModelSet
	detector Detector
}

// referenceModels are those of all frozen sets.
func referenceModels(tb testing.TB) (models []referenceModel) {
	tb.Helper()
	for _, set := range openReferences(tb) {
		for _, d := range set.Detectors() {
			models = append(models, referenceModel{set, d})
		}
	}
	return models
}

func TestBatchEqualsSingle(t *testing.T) {
	for _, c := range referenceModels(t) {
		set, d := c.set, c.detector
		for _, explain := range []Explain{ExplainAlways, ExplainNever, ExplainAlarms} {
			var rows []float64
			requests := goldenRequests(t, set, d, explain)
			for _, r := range requests {
				for _, sample := range r.Samples[len(r.Samples)-WindowLength(set, d):] {
					rows = append(rows, sample...)
				}
			}
			var batch BatchVerdict
			require.NoError(t, set.ScoreBatch(t.Context(), BatchRequest{Detector: d, Rows: rows, Explain: explain}, &batch))
			require.Len(t, batch.Scores, len(requests))
			var one, item Verdict
			for i, r := range requests {
				require.NoError(t, set.Score(t.Context(), r, &one))
				batch.Item(i, 7, &item)
				require.Equal(t, one.Score, item.Score)
				require.Equal(t, one.DepthSum, item.DepthSum)
				require.Equal(t, one.Level, item.Level)
				require.Equal(t, one.PValue, item.PValue)
				require.Equal(t, one.IsAnomaly, item.IsAnomaly)
				if len(one.Contributions) > 0 {
					require.Equal(t, one.Contributions, item.Contributions)
					require.Equal(t, one.Expected, item.Expected)
				} else if explain == ExplainNever {
					require.Empty(t, item.Contributions)
				} else {
					require.Equal(t, make([]float32, 7), item.Contributions)
				}
			}
		}
	}
}

func TestSeriesScoresEveryFullWindow(t *testing.T) {
	set := openReference(t)
	var rows []float64
	var samples [][]float64
	for i := range 30 {
		row := rowWith(i%7, float64(i))
		samples = append(samples, row)
		rows = append(rows, row...)
	}
	for _, d := range set.Detectors() {
		var batch BatchVerdict
		require.NoError(t, set.ScoreBatch(t.Context(), BatchRequest{Detector: d, Rows: rows, Layout: BatchSeries}, &batch))
		window := WindowLength(set, d)
		require.Len(t, batch.Scores, 31-window)
		var v Verdict
		for i := range batch.Scores {
			require.NoError(t, set.Score(t.Context(), Request{Detector: d, Samples: samples[:i+window]}, &v))
			require.Equal(t, v.Score, batch.Scores[i])
		}
	}
}

func TestCancelledBatch(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var v BatchVerdict
	err := openReference(t).ScoreBatch(ctx, BatchRequest{Detector: IsolationForest, Rows: plainRow}, &v)
	require.ErrorIs(t, err, context.Canceled)
}

// requireNoAllocations demands that scoring the requests, one after the other, allocates nothing once the first of them has been scored.
func requireNoAllocations(t *testing.T, set *ModelSet, requests ...Request) {
	t.Helper()
	if raceEnabled {
		t.Skip("the race detector allocates, and makes sync.Pool drop objects at random")
	}
	var v Verdict
	i := 0
	allocs := testing.AllocsPerRun(200, func() {
		if err := set.Score(context.Background(), requests[i%len(requests)], &v); err != nil {
			panic(err)
		}
		i++
	})
	require.Zero(t, allocs, "%s, explain %d", requests[0].Detector, requests[0].Explain)
}

func TestScoringDoesNotAllocate(t *testing.T) {
	for _, c := range referenceModels(t) {
		set, d := c.set, c.detector
		for _, explain := range []Explain{ExplainNever, ExplainAlways} {
			requireNoAllocations(t, set, goldenRequests(t, set, d, explain)...)
		}
	}
}

func TestCalibration(t *testing.T) {
	c := calibration{scores: []float32{.1, .2, .2, .3}}
	for _, x := range []struct {
		score     float32
		isAnomaly bool
		p         float64
		level     Level
	}{
		{.05, false, 1, LevelNormal}, {.2, false, .8, LevelNormal}, {.2, true, .8, LevelWarning}, {.3, true, .4, LevelWarning},
		{.31, true, .2, LevelCritical}, {.31, false, .2, LevelNormal},
	} {
		p, level := c.judge(x.score, x.isAnomaly)
		assert.Equal(t, x.p, p)
		assert.Equal(t, x.level, level)
	}
}

func TestErrorsAreTyped(t *testing.T) {
	cause := errors.New("why")
	err := fmt.Errorf("outer: %w", refuse(CodeGraphInvalid, "x.onnx", "bad: %w", cause))
	require.ErrorIs(t, err, CodeGraphInvalid)
	require.NotErrorIs(t, err, CodeNotFinite)
	require.ErrorIs(t, err, cause)
	require.Equal(t, "GRAPH_INVALID x.onnx: bad: why", AsError(err).Error())
	require.Equal(t, CodeInternal, AsError(cause).Code)
	for _, code := range []Code{CodeInvalidRequest, CodeManifestMissing, CodeInternal} {
		back, ok := codeFromName(code.String())
		require.True(t, ok)
		require.Equal(t, code, back)
	}
	_, ok := codeFromName("UNSPECIFIED")
	require.False(t, ok)
}

func TestDetectorNames(t *testing.T) {
	for _, d := range Detectors() {
		parsed, err := ParseDetector(d.String())
		require.NoError(t, err)
		require.Equal(t, d, parsed)
	}
	_, err := ParseDetector("unspecified")
	require.ErrorIs(t, err, CodeUnknownDetector)
}
