package server

import (
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	anomaly "dwcp.internal/anomaly"
	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// TestMetrics is M1 and M2: after some calls of every kind the page has what they led to, and nothing that a stranger made up.
func TestMetrics(t *testing.T) {
	folder := t.TempDir()
	copySet(t, folder, 2, 100)
	set := openReference(t)
	settings := Settings{Models: folder, Listen: "127.0.0.1:0", Metrics: "127.0.0.1:0", Limits: limits(8)}
	s := startWith(t, set, settings, silent())
	connection := connect(t, s.Addresses[0])
	client := anomalyv1.NewScoringServiceClient(connection)
	alarm := []float64{1, 900, 50, 200, 100, 100, 50}
	var verdict anomaly.Verdict
	require.NoError(t, set.Score(t.Context(), anomaly.Request{Detector: forest, Samples: [][]float64{alarm}}, &verdict))
	require.True(t, verdict.IsAnomaly)
	for _, explain := range []anomalyv1.Explain{0, anomalyv1.Explain_EXPLAIN_NEVER} {
		_, err := client.Score(t.Context(), edit(scoreRequestOf(forest, alarm), func(r *anomalyv1.ScoreRequest) { r.Explain = explain }))
		require.NoError(t, err)
	}
	_, err := client.Score(t.Context(), scoreRequestOf(forest, with(2, math.NaN())))
	require.Error(t, err)
	_, err = client.ScoreBatch(t.Context(), batchRequestOf(forest, alarm, row()))
	require.NoError(t, err)
	stream := openStream(t, connection)
	exchange(t, stream, &anomalyv1.ScoreStreamRequest{Settings: settingsOf(forest), Samples: []*anomalyv1.StreamSample{
		sampleOf("a", alarm), sampleOf("a", nil), sampleOf("b", row()),
	}})
	assert.Contains(t, metricsPage(t, s), "\ndwcp_streams 1\n")
	require.NoError(t, stream.CloseSend())
	_, err = stream.Recv()
	require.Error(t, err)
	err = connection.Invoke(t.Context(), "/dwcp.anomaly.v1.ScoringService/MadeUp", &anomalyv1.GetModelSetRequest{}, new(anomalyv1.GetModelSetResponse))
	require.Equal(t, codes.Unimplemented, status.Code(err))
	answer, err := reloadBy(t, s)
	require.NoError(t, err)
	_, err = reloadBy(t, s)
	require.NoError(t, err)

	page := metricsPage(t, s)
	for _, line := range []string{
		`dwcp_requests_total{code="OK",method="Score"} 2`, `dwcp_requests_total{code="INVALID_ARGUMENT",method="Score"} 1`,
		`dwcp_requests_total{code="OK",method="ScoreBatch"} 1`, `dwcp_requests_total{code="OK",method="ScoreStream"} 1`,
		`dwcp_requests_total{code="OK",method="Reload"} 2`, `dwcp_request_seconds_count{method="Score"} 3`,
		`dwcp_request_seconds_count{method="ScoreStream"} 1`, `dwcp_scores_total{detector="isolation_forest"} 6`,
		`dwcp_alarms_total{detector="isolation_forest",level="` + verdict.Level.String() + `",metric="` + verdict.TopFeature + `"} 3`,
		`dwcp_alarms_total{detector="isolation_forest",level="` + verdict.Level.String() + `",metric=""} 1`,
		`dwcp_score_p_value_count{detector="isolation_forest"} 6`, `dwcp_score_p_value_bucket{detector="isolation_forest",le="0.01"} 4`,
		`dwcp_score_p_value_count{detector="lstm_autoencoder"} 0`,
		`dwcp_alarm_budget_share{detector="isolation_forest"} 0.01`, `dwcp_alarm_budget_share{detector="lstm_autoencoder"} 0.05`,
		`dwcp_refusals_total{code="NOT_FINITE"} 1`, `dwcp_refusals_total{code="WRONG_WIDTH"} 1`,
		`dwcp_reloads_total{result="swapped"} 1`, `dwcp_reloads_total{result="unchanged"} 1`, `dwcp_reloads_total{result="refused"} 0`,
		`dwcp_model_set_info{model_set_id="` + answer.GetModelSetId() + `"} 1`, `dwcp_in_flight 0`, `dwcp_queued 0`, `dwcp_streams 0`,
		`dwcp_workers 1`, `dwcp_worker_restarts_total 0`,
	} {
		assert.Contains(t, page, "\n"+line+"\n")
	}
	assert.NotContains(t, page, "MadeUp")
	assert.NotContains(t, page, set.ID(), "one set is in use")
	names := map[string]bool{}
	for line := range strings.Lines(page) {
		if word, rest, _ := strings.Cut(line, " "); word == "#" && strings.HasPrefix(rest, "TYPE ") {
			names[strings.Fields(rest)[1]] = true
		}
	}
	for _, name := range []string{"dwcp_model_set_loaded_timestamp_seconds", "dwcp_model_set_created_timestamp_seconds"} {
		assert.True(t, names[name], name)
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		assert.True(t, strings.HasPrefix(name, "dwcp_"), name)
	}
}

// TestCountingAllocatesNothing counts a verdict and a batch as calls do.
func TestCountingAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	m := newLive(openReference(t), newMetrics(state{}), 0).model(forest)
	verdict := anomaly.Verdict{PValue: .3, IsAnomaly: true, Level: anomaly.LevelWarning, Contributions: make([]float32, 7)}
	batch := anomaly.BatchVerdict{Scores: make([]float32, 100), PValues: make([]float64, 100), IsAnomaly: make([]bool, 100)}
	assert.Zero(t, testing.AllocsPerRun(100, func() { m.verdict(&verdict); m.batch(&batch) }))
}

// BenchmarkCounting is what counting costs a call, and a batch of 16,384 items.
func BenchmarkCounting(b *testing.B) {
	m := newLive(openReference(b), newMetrics(state{}), 0).model(forest)
	verdict := anomaly.Verdict{PValue: .6}
	batch := anomaly.BatchVerdict{Scores: make([]float32, 16384), PValues: make([]float64, 16384), IsAnomaly: make([]bool, 16384)}
	for i := range batch.PValues {
		batch.PValues[i] = float64(1+i) / 16384
	}
	b.Run("verdict", func(b *testing.B) {
		for b.Loop() {
			m.verdict(&verdict)
		}
	})
	b.Run("batch", func(b *testing.B) {
		for b.Loop() {
			m.batch(&batch)
		}
	})
}
