package server

import (
	"context"
	"encoding/json"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	anomaly "dwcp.internal/anomaly"
	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

const (
	referenceSet = "../../../models/reference/v1"
	scoreMethod  = anomalyv1.ScoringService_Score_FullMethodName
	batchMethod  = anomalyv1.ScoringService_ScoreBatch_FullMethodName
	streamMethod = anomalyv1.ScoringService_ScoreStream_FullMethodName
	setMethod    = anomalyv1.ScoringService_GetModelSet_FullMethodName

	forest = anomaly.IsolationForest
	lstm   = anomaly.LSTMAutoencoder
)

// reference opens the reference set once; tests only read it.
var reference = sync.OnceValues(func() (*anomaly.ModelSet, error) { return anomaly.OpenModelSet(referenceSet) })

func openReference(tb testing.TB) *anomaly.ModelSet {
	tb.Helper()
	set, err := reference()
	require.NoError(tb, err)
	return set
}

func silent() *slog.Logger { return slog.New(slog.DiscardHandler) }

// start serves a scorer on TCP and on a unix socket until the test ends.
func start(tb testing.TB, scorer anomaly.Scorer, limit int, log *slog.Logger) *Server {
	tb.Helper()
	return startWith(tb, scorer, Settings{Listen: "127.0.0.1:0", Unix: filepath.Join(tb.TempDir(), "s"), Limits: limits(limit)}, log)
}

// limits are the default ones, with few calls in flight.
func limits(inFlight int) Limits {
	l := DefaultLimits()
	l.MaxInFlight = inFlight
	return l
}

func startWith(tb testing.TB, scorer anomaly.Scorer, settings Settings, log *slog.Logger) *Server {
	tb.Helper()
	s, err := New(scorer, settings, log)
	require.NoError(tb, err)
	require.NoError(tb, s.Start())
	tb.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.Stop(ctx)
	})
	return s
}

func connect(tb testing.TB, address string) *grpc.ClientConn {
	tb.Helper()
	c, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessageBytes), grpc.MaxCallSendMsgSize(2*MaxMessageBytes)))
	require.NoError(tb, err)
	tb.Cleanup(func() { c.Close() })
	return c
}

func dial(tb testing.TB, address string) *anomaly.Sidecar {
	tb.Helper()
	s, err := anomaly.DialSidecar(tb.Context(), address, anomaly.WithDeadline(time.Minute))
	require.NoError(tb, err)
	tb.Cleanup(func() { s.Close() })
	return s
}

// goldenFile reads the golden vectors of the reference set.
func goldenFile(tb testing.TB, d anomaly.Detector) [][][]float64 {
	tb.Helper()
	data, err := os.ReadFile(filepath.Join(referenceSet, map[anomaly.Detector]string{
		forest: "isolation_forest.golden.json", lstm: "lstm_autoencoder.golden.json",
	}[d]))
	require.NoError(tb, err)
	var file struct {
		Cases []struct {
			Samples []struct {
				Values []any `json:"values"`
			} `json:"samples"`
			Score any `json:"score"`
		} `json:"cases"`
	}
	require.NoError(tb, json.Unmarshal(data, &file))
	var cases [][][]float64
	for _, c := range file.Cases {
		if c.Score == nil {
			continue
		}
		var samples [][]float64
		for _, s := range c.Samples {
			var row []float64
			for _, v := range s.Values {
				row = append(row, v.(float64))
			}
			samples = append(samples, row)
		}
		cases = append(cases, samples)
	}
	require.Greater(tb, len(cases), 50)
	return cases
}

// windows are the scored parts of every tenth golden vector, row after row.
func windows(tb testing.TB, set *anomaly.ModelSet, d anomaly.Detector) (rows []float64, count int) {
	for i, samples := range goldenFile(tb, d) {
		if i%10 != 0 { // an autoencoder takes its time under the race detector
			continue
		}
		for _, sample := range samples[len(samples)-anomaly.WindowLength(set, d):] {
			rows = append(rows, sample...)
		}
		count++
	}
	return rows, count
}

// TestGoldenVectorsOverTheWire: the native bits, also for the error cases (rules P2, V2).
func TestGoldenVectorsOverTheWire(t *testing.T) {
	set := openReference(t)
	for _, address := range start(t, set, 8, silent()).Addresses {
		sidecar := dial(t, address)
		require.Equal(t, set.ID(), sidecar.ID())
		for _, d := range set.Detectors() {
			report := set.Golden(t.Context(), d, sidecar)
			require.NoError(t, report.Err())
			require.Greater(t, report.Cases, 100)
		}
	}
}

// TestAnswersAreThoseInProcess, in every field, for every golden vector that has a score and every way to explain.
func TestAnswersAreThoseInProcess(t *testing.T) {
	set := openReference(t)
	sidecar := dial(t, start(t, set, 8, silent()).Addresses[1])
	var here, there anomaly.Verdict
	alarms := map[bool]int{}
	for _, d := range set.Detectors() {
		for _, samples := range goldenFile(t, d) {
			for _, explain := range []anomaly.Explain{anomaly.ExplainAlarms, 1, anomaly.ExplainAlways, anomaly.ExplainNever} {
				request := anomaly.Request{Detector: d, Samples: samples, Explain: explain, ModelSetID: set.ID()}
				require.NoError(t, set.Score(t.Context(), request, &here))
				require.NoError(t, sidecar.Score(t.Context(), request, &there))
				require.Equal(t, math.Float32bits(here.Score), math.Float32bits(there.Score))
				require.Equal(t, append([]float32{}, here.Contributions...), append([]float32{}, there.Contributions...))
				require.Equal(t, append([]float32{}, here.Expected...), append([]float32{}, there.Expected...))
				here.Contributions, there.Contributions, here.Expected, there.Expected = nil, nil, nil, nil
				require.Equal(t, here, there)
				alarms[here.IsAnomaly]++
			}
		}
	}
	require.NotZero(t, alarms[true])
	require.NotZero(t, alarms[false])
}

func TestDepthSumIsOfTheForestAlone(t *testing.T) {
	set := openReference(t)
	client := anomalyv1.NewScoringServiceClient(connect(t, start(t, set, 8, silent()).Addresses[0]))
	for _, d := range []anomaly.Detector{forest, lstm, forest} { // calls use the memory of earlier ones
		answer, err := client.Score(t.Context(), scoreRequestOf(d, rowsOf(10)...))
		require.NoError(t, err)
		assert.Equal(t, d == forest, answer.GetVerdict().DepthSum != nil)
		assert.Equal(t, set.ID(), answer.GetModelSetId())
		batch, err := client.ScoreBatch(t.Context(), batchRequestOf(d, rowsOf(10)...))
		require.NoError(t, err)
		assert.Equal(t, d == forest, len(batch.GetDepthSums()) > 0)
		assert.Equal(t, set.ID(), batch.GetModelSetId())
	}
}

func TestBatchesAreThoseInProcess(t *testing.T) {
	set := openReference(t)
	sidecar := dial(t, start(t, set, 8, silent()).Addresses[0])
	for _, d := range set.Detectors() {
		rows, count := windows(t, set, d)
		window := anomaly.WindowLength(set, d)
		for layout, items := range map[anomaly.BatchLayout]int{
			anomaly.BatchWindows: count, 1: count, anomaly.BatchSeries: count*window - window + 1,
		} {
			for _, explain := range []anomaly.Explain{anomaly.ExplainAlarms, anomaly.ExplainAlways, anomaly.ExplainNever} {
				var here, there anomaly.BatchVerdict
				request := anomaly.BatchRequest{Detector: d, Rows: rows, Layout: layout, Explain: explain}
				require.NoError(t, set.ScoreBatch(t.Context(), request, &here))
				require.NoError(t, sidecar.ScoreBatch(t.Context(), request, &there))
				require.Len(t, there.Scores, items)
				if explain == anomaly.ExplainNever {
					require.Empty(t, there.Contributions)
					here.Contributions, here.Expected, there.Contributions, there.Expected = nil, nil, nil, nil
				}
				if d != forest {
					require.Empty(t, there.DepthSums)
					here.DepthSums, there.DepthSums = nil, nil
				}
				require.Equal(t, here, there)
			}
		}
	}
}

// TestTheLargestBatch is W4: 16,384 items are scored.
func TestTheLargestBatch(t *testing.T) {
	client := anomalyv1.NewScoringServiceClient(connect(t, start(t, openReference(t), 8, silent()).Addresses[0]))
	request := batchRequestOf(forest, rowsOf(anomaly.MaxBatchItems)...)
	request.Explain = anomalyv1.Explain_EXPLAIN_NEVER
	answer, err := client.ScoreBatch(t.Context(), request)
	require.NoError(t, err)
	require.Len(t, answer.GetScores(), anomaly.MaxBatchItems)
}

func TestGetModelSet(t *testing.T) {
	set := openReference(t)
	client := anomalyv1.NewScoringServiceClient(connect(t, start(t, set, 8, silent()).Addresses[0]))
	answer, err := client.GetModelSet(t.Context(), &anomalyv1.GetModelSetRequest{})
	require.NoError(t, err)
	assert.Equal(t, set.ID(), answer.GetModelSetId())
	require.Len(t, answer.GetModels(), 2)
	for i, d := range set.Detectors() {
		m := answer.GetModels()[i]
		assert.Equal(t, d.String(), m.GetModelType())
		assert.Equal(t, set.Metadata(d).GetThreshold(), m.GetThreshold())
		assert.NotNil(t, m.GetCalibration())
		assert.Empty(t, m.GetCalibration().GetScores())
		assert.Empty(t, m.GetTraining().GetHistory())
		assert.NotEmpty(t, set.Metadata(d).GetCalibration().GetScores(), "the open set itself stays whole")
	}
}

// forestAlone is the reference set without the LSTM autoencoder.
func forestAlone(t *testing.T) *anomaly.ModelSet {
	t.Helper()
	folder := t.TempDir()
	require.NoError(t, os.CopyFS(folder, os.DirFS(referenceSet)))
	editManifest(t, folder, func(models []any) []any { return models[:1] })
	set, err := anomaly.OpenModelSet(folder)
	require.NoError(t, err)
	return set
}

// editManifest changes the models of a set in a folder.
func editManifest(t *testing.T, folder string, edit func(models []any) []any) {
	t.Helper()
	path := filepath.Join(folder, anomaly.ManifestFile)
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	var manifest map[string]any
	require.NoError(t, json.Unmarshal(data, &manifest))
	manifest["models"] = edit(manifest["models"].([]any))
	data, err = json.Marshal(manifest)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, data, 0o600))
}

// assertRefused checks status, ErrorInfo and BadRequest (rule E4), and that nothing private is in the text.
func assertRefused(t *testing.T, err error, code anomaly.Code, field string) {
	t.Helper()
	assert.Equal(t, anomaly.ToStatus(&anomaly.Error{Code: code}).Code(), status.Code(err))
	assertReason(t, err, code, field)
}

// assertReason is assertRefused for a status that is not that of the code.
func assertReason(t *testing.T, err error, code anomaly.Code, field string) {
	t.Helper()
	st, ok := status.FromError(err)
	require.True(t, ok)
	wanted := 1
	if field != "" {
		wanted = 2
	}
	require.Len(t, st.Details(), wanted, "%v", st)
	info := st.Details()[0].(*errdetails.ErrorInfo)
	assert.Equal(t, []string{code.String(), "dwcp.anomaly"}, []string{info.GetReason(), info.GetDomain()})
	if field != "" {
		violations := st.Details()[1].(*errdetails.BadRequest).GetFieldViolations()
		require.Len(t, violations, 1)
		assert.Equal(t, field, violations[0].GetField())
	}
	assert.NotEmpty(t, st.Message())
	for _, private := range []string{"goroutine", "/work", "/tmp", ".go", "\n"} {
		assert.NotContains(t, st.Message(), private)
	}
}
