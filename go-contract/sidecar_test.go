package anomaly

import (
	"context"
	"encoding/binary"
	"math"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// fakeSidecar serves a model set over gRPC by the rules of E4; delay and id can be bent.
type fakeSidecar struct {
	anomalyv1.UnimplementedScoringServiceServer
	set   *ModelSet
	id    string
	delay time.Duration
}

func (f *fakeSidecar) GetModelSet(context.Context, *anomalyv1.GetModelSetRequest) (*anomalyv1.GetModelSetResponse, error) {
	reply := &anomalyv1.GetModelSetResponse{ModelSetId: f.id}
	for _, d := range f.set.Detectors() {
		reply.Models = append(reply.Models, f.set.Metadata(d))
	}
	return reply, nil
}

func (f *fakeSidecar) Score(ctx context.Context, r *anomalyv1.ScoreRequest) (*anomalyv1.ScoreResponse, error) {
	select {
	case <-time.After(f.delay):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	request := Request{Detector: Detector(r.GetDetector()), Explain: Explain(r.GetExplain())}
	for _, s := range r.GetSamples() {
		request.Samples = append(request.Samples, s.GetValues())
	}
	var v Verdict
	if err := f.set.Score(ctx, request, &v); err != nil {
		return nil, ToStatus(AsError(err)).Err()
	}
	return &anomalyv1.ScoreResponse{ModelSetId: f.id, Verdict: &anomalyv1.Verdict{
		Score: v.Score, IsAnomaly: v.IsAnomaly, Threshold: v.Threshold, PValue: v.PValue, Level: anomalyv1.Level(v.Level),
		Contributions: v.Contributions, Expected: v.Expected, TopFeature: v.TopFeature, DepthSum: &v.DepthSum,
	}}, nil
}

func (f *fakeSidecar) ScoreBatch(ctx context.Context, r *anomalyv1.ScoreBatchRequest) (*anomalyv1.ScoreBatchResponse, error) {
	request := BatchRequest{Detector: Detector(r.GetDetector()), Layout: BatchLayout(r.GetLayout()), Explain: Explain(r.GetExplain())}
	for b := r.GetRows(); len(b) > 0; b = b[8:] {
		request.Rows = append(request.Rows, math.Float64frombits(binary.LittleEndian.Uint64(b)))
	}
	var v BatchVerdict
	if err := f.set.ScoreBatch(ctx, request, &v); err != nil {
		return nil, ToStatus(AsError(err)).Err()
	}
	reply := &anomalyv1.ScoreBatchResponse{
		ModelSetId: f.id, Scores: v.Scores, IsAnomaly: v.IsAnomaly, PValues: v.PValues, Contributions: v.Contributions,
		Expected: v.Expected, DepthSums: v.DepthSums, Threshold: v.Threshold,
	}
	for _, l := range v.Levels {
		reply.Levels = append(reply.Levels, anomalyv1.Level(l))
	}
	return reply, nil
}

// serve starts f on a unix socket and gives its address.
func serve(t *testing.T, f *fakeSidecar) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s.sock")
	listener, err := net.Listen("unix", path)
	require.NoError(t, err)
	server := grpc.NewServer()
	anomalyv1.RegisterScoringServiceServer(server, f)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return "unix://" + path
}

func TestSidecarGivesTheSameAnswers(t *testing.T) {
	set := openReference(t)
	s, err := DialSidecar(t.Context(), serve(t, &fakeSidecar{set: set, id: set.ID()}), WithDeadline(10*time.Second), WithModelSetID(set.ID()))
	require.NoError(t, err)
	defer s.Close()
	for _, d := range set.Detectors() {
		report := set.Golden(t.Context(), d, s) // error cases come back through the status (E4)
		require.NoError(t, report.Err())
	}
	rows := make([]float64, 20*7)
	var here, there BatchVerdict
	for _, layout := range []BatchLayout{BatchWindows, BatchSeries} {
		request := BatchRequest{Detector: LSTMAutoencoder, Rows: rows, Layout: layout, Explain: ExplainAlways}
		require.NoError(t, set.ScoreBatch(t.Context(), request, &here))
		require.NoError(t, s.ScoreBatch(t.Context(), request, &there))
		assert.Equal(t, here.Scores, there.Scores)
		assert.Equal(t, here.Levels, there.Levels)
		assert.Equal(t, here.Contributions, there.Contributions)
	}
	err = s.ScoreBatch(t.Context(), BatchRequest{Detector: IsolationForest}, &there)
	require.ErrorIs(t, err, CodeNoSamples)
	assert.Equal(t, "rows", AsError(err).Field)
}

func TestSidecarWithAnotherSetIsRefused(t *testing.T) {
	set := openReference(t)
	f := &fakeSidecar{set: set, id: "other"}
	address := serve(t, f)
	_, err := DialSidecar(t.Context(), address, WithModelSetID(set.ID()))
	require.ErrorIs(t, err, CodeModelSetMismatch)

	s, err := DialSidecar(t.Context(), address, WithDeadline(5*time.Second)) // pins "other"
	require.NoError(t, err)
	defer s.Close()
	f.id = "third" // the server reloads
	var v Verdict
	err = s.Score(t.Context(), Request{Detector: IsolationForest, Samples: [][]float64{make([]float64, 7)}}, &v)
	require.ErrorIs(t, err, CodeModelSetMismatch)
}

// TestMembersWithoutAScoreAreMissing: no score must not look like a score of 0 (E3).
func TestMembersWithoutAScoreAreMissing(t *testing.T) {
	score, normalized := float32(2), .5
	got := Verdict{Members: make([]MemberVerdict, 3)}
	readVerdict(&anomalyv1.Verdict{Members: []*anomalyv1.MemberVerdict{
		{Detector: 1, Weight: 1, Score: &score, Normalized: &normalized}, {Detector: 3, Missing: "gone"}, {Detector: 5},
	}}, &got)
	assert.Equal(t, []MemberVerdict{
		{Detector: IsolationForest, Weight: 1, Score: 2, Normalized: .5}, {Detector: DenseAutoencoder, Missing: "gone"},
		{Detector: OneClassSVM, Missing: "the sidecar gave neither a score nor a reason"},
	}, got.Members)
	readVerdict(&anomalyv1.Verdict{}, &got)
	assert.Empty(t, got.Members)
}
