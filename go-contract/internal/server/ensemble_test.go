package server

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	anomaly "dwcp.internal/anomaly"
	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
	oipv2 "dwcp.internal/anomaly/gen/dwcp/oip/v2"
	"dwcp.internal/anomaly/internal/testsets"
)

const ensemble = anomaly.Ensemble

// withEnsemble opens a set of the detectors of frozen sets and an ensemble of them.
func withEnsemble(sets ...string) (*anomaly.ModelSet, error) {
	return written(testsets.WriteEnsemble, sets)
}

func written(write func(folder string, from ...string) error, sets []string) (*anomaly.ModelSet, error) {
	folder, err := os.MkdirTemp("", "dwcp")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	if err := write(folder, sets...); err != nil {
		return nil, err
	}
	return anomaly.OpenModelSet(folder)
}

// withOpenEnsemble is withEnsemble on the common scale of rule EN8.
func withOpenEnsemble(sets ...string) (*anomaly.ModelSet, error) {
	return written(testsets.WriteOpenEnsemble, sets)
}

const (
	moreSet        = "../../../models/reference/more-v1"
	mahalanobisSet = "../../../models/reference/mahalanobis-v1"
)

var (
	// ensembleOfAll has a member that the enum, and so the manifest, has after the ensemble; ensembleOfWindows has members of windows and of
	// samples, ensembleOfSamples of samples alone.
	ensembleOfAll     = sync.OnceValues(func() (*anomaly.ModelSet, error) { return withOpenEnsemble(referenceSet, moreSet, mahalanobisSet) })
	ensembleOfWindows = sync.OnceValues(func() (*anomaly.ModelSet, error) { return withEnsemble(referenceSet, moreSet) })
	ensembleOfSamples = sync.OnceValues(func() (*anomaly.ModelSet, error) { return withEnsemble(moreSet) })
)

// membersOf are members as a message has them.
func membersOf(messages []*anomalyv1.MemberVerdict) (members []anomaly.MemberVerdict) {
	for _, m := range messages {
		members = append(members, anomaly.MemberVerdict{
			Detector: anomaly.Detector(m.GetDetector()), Weight: m.GetWeight(), Score: m.GetScore(), Normalized: m.GetNormalized(), Missing: m.GetMissing(),
		})
	}
	return members
}

// series is a quiet series that ends with latencies that no member knows.
func series() [][]float64 {
	rows := rowsOf(20)
	for i := range 5 {
		rows[15+i] = with(1, 30*float64(i+1))
	}
	return rows
}

func TestEnsembleIsServed(t *testing.T) {
	for _, open := range []func() (*anomaly.ModelSet, error){ensembleOfAll, ensembleOfWindows, ensembleOfSamples} {
		set, err := open()
		require.NoError(t, err)
		s := start(t, set, 8, silent())
		connection := connect(t, s.Addresses[0])
		client := anomalyv1.NewScoringServiceClient(connection)
		rows, window := series(), anomaly.WindowLength(set, ensemble)
		requireEnsembleDescribed(t, connection, set)
		requireEnsembleInferred(t, connection, set)

		var here anomaly.Verdict
		alarms := 0
		for end := window; end <= len(rows); end++ {
			for _, explain := range []anomaly.Explain{anomaly.ExplainAlarms, anomaly.ExplainAlways, anomaly.ExplainNever} {
				require.NoError(t, set.Score(t.Context(), anomaly.Request{Detector: ensemble, Samples: rows[:end], Explain: explain}, &here))
				request := scoreRequestOf(ensemble, rows[:end]...)
				request.Explain = anomalyv1.Explain(explain)
				answer, err := client.Score(t.Context(), request)
				require.NoError(t, err)
				requireSameVerdict(t, &here, answer.GetVerdict())
				if here.IsAnomaly {
					alarms++
				}
			}
		}
		require.Greater(t, alarms, 0)
		batch, err := client.ScoreBatch(t.Context(), batchRequestOf(ensemble, rows...))
		require.NoError(t, err)
		require.Len(t, batch.GetScores(), len(rows)/window)
		require.Empty(t, batch.GetDepthSums())

		refused := scoreRequestOf(ensemble, rows[:window-1]...)
		_, err = client.Score(t.Context(), refused)
		if window > 1 {
			assertRefused(t, err, anomaly.CodeWindowTooShort, "samples")
		} else {
			assertRefused(t, err, anomaly.CodeNoSamples, "samples")
		}
	}
}

// requireSameVerdict demands a message with every field of a verdict of an ensemble.
func requireSameVerdict(t *testing.T, want *anomaly.Verdict, got *anomalyv1.Verdict) {
	t.Helper()
	require.Equal(t, math.Float32bits(want.Score), math.Float32bits(got.GetScore()))
	require.Equal(t, []any{want.IsAnomaly, want.Threshold, want.PValue, want.Level, want.TopFeature},
		[]any{got.GetIsAnomaly(), got.GetThreshold(), got.GetPValue(), anomaly.Level(got.GetLevel()), got.GetTopFeature()})
	require.Equal(t, slices.Concat([]float32{}, want.Contributions), slices.Concat([]float32{}, got.GetContributions()))
	require.Equal(t, slices.Concat([]float32{}, want.Expected), slices.Concat([]float32{}, got.GetExpected()))
	require.Nil(t, got.DepthSum)
	require.Equal(t, want.Members, membersOf(got.GetMembers()))
	require.NotEmpty(t, got.GetMembers())
	for _, m := range got.GetMembers() {
		require.NotNil(t, m.Score)
		require.NotNil(t, m.Normalized)
	}
}

func requireEnsembleDescribed(t *testing.T, connection *grpc.ClientConn, set *anomaly.ModelSet) {
	t.Helper()
	answer, err := grpc_health_v1.NewHealthClient(connection).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{
		Service: "dwcp.anomaly.v1.ScoringService/ensemble",
	})
	require.NoError(t, err)
	require.Equal(t, serving, answer.GetStatus())
	models, err := anomalyv1.NewScoringServiceClient(connection).GetModelSet(t.Context(), &anomalyv1.GetModelSetRequest{})
	require.NoError(t, err)
	at := slices.IndexFunc(models.GetModels(), func(m *anomalyv1.ModelMetadata) bool { return m.GetModelType() == "ensemble" })
	require.NotEqual(t, -1, at)
	require.Len(t, models.GetModels()[at].GetEnsemble().GetMembers(), len(set.Detectors())-1)
	require.Equal(t, set.Metadata(ensemble).GetGraph().GetLayout(), models.GetModels()[at].GetGraph().GetLayout())
}

// requireEnsembleInferred: [N, features], or [N, timesteps, features] when a member has a window (O2), with the values of ScoreBatch.
func requireEnsembleInferred(t *testing.T, connection *grpc.ClientConn, set *anomaly.ModelSet) {
	t.Helper()
	client, rows, window := oipv2.NewGRPCInferenceServiceClient(connection), series(), anomaly.WindowLength(set, ensemble)
	shape := []int64{-1, 7}
	if window > 1 {
		shape = []int64{-1, int64(window), 7}
	}
	model, err := client.ModelMetadata(t.Context(), &oipv2.ModelMetadataRequest{Name: "ensemble"})
	require.NoError(t, err)
	require.Equal(t, shape, model.GetInputs()[0].GetShape())
	require.Len(t, model.GetOutputs(), 7)

	request := inferRequestOf(ensemble, 0, rows...)
	request.Inputs[0].Shape = slices.Concat([]int64{int64(len(rows) / window)}, shape[1:])
	answer, err := client.ModelInfer(t.Context(), request)
	require.NoError(t, err)
	var want anomaly.BatchVerdict
	require.NoError(t, set.ScoreBatch(t.Context(), anomaly.BatchRequest{
		Detector: ensemble, Rows: slices.Concat(rows...), Explain: anomaly.ExplainAlways,
	}, &want))
	for k, list := range map[int][]float32{0: want.Scores, 5: want.Contributions, 6: want.Expected} {
		var bytes []byte
		for _, x := range list {
			bytes = binary.LittleEndian.AppendUint32(bytes, math.Float32bits(x))
		}
		require.Equal(t, bytes, answer.GetRawOutputContents()[k])
	}
}

// TestEnsembleInAStream: its window is its own, and members come with every verdict (ST3, EN6).
func TestEnsembleInAStream(t *testing.T) {
	set, err := ensembleOfAll()
	require.NoError(t, err)
	stream := openStream(t, connect(t, start(t, set, 8, silent()).Addresses[0]))
	request := &anomalyv1.ScoreStreamRequest{Settings: settingsOf(ensemble, forest, anomaly.Mahalanobis)}
	for _, values := range series() {
		request.Samples = append(request.Samples, sampleOf("a link", values))
	}
	var here anomaly.Verdict
	for i, result := range exchange(t, stream, request).GetResults() {
		require.NotNil(t, result.GetVerdicts()[1].GetVerdict(), "the forest needs no window")
		require.Empty(t, result.GetVerdicts()[1].GetVerdict().GetMembers())
		if alone := result.GetVerdicts()[2]; i < 4 { // the window of the Mahalanobis distance is shorter than the ensemble's
			require.Equal(t, anomalyv1.ErrorCode_ERROR_CODE_WINDOW_TOO_SHORT, alone.GetError().GetCode())
		} else {
			require.NoError(t, set.Score(t.Context(), anomaly.Request{Detector: anomaly.Mahalanobis, Samples: series()[:i+1]}, &here))
			require.Equal(t, math.Float32bits(here.Score), math.Float32bits(alone.GetVerdict().GetScore()))
			require.Equal(t, here.TopFeature, alone.GetVerdict().GetTopFeature())
		}
		own := result.GetVerdicts()[0]
		if i < 9 {
			require.Equal(t, anomalyv1.ErrorCode_ERROR_CODE_WINDOW_TOO_SHORT, own.GetError().GetCode())
			continue
		}
		require.NoError(t, set.Score(t.Context(), anomaly.Request{Detector: ensemble, Samples: series()[:i+1]}, &here))
		requireSameVerdict(t, &here, own.GetVerdict())
	}
}

// TestVerdictsAreTheBytesOfTheGeneratedCode: with every field there or not, members that answered, also with 0, and others.
func TestVerdictsAreTheBytesOfTheGeneratedCode(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 7))
	some := func(x float64) float64 { // 0 now and then, which is left out
		if random.IntN(3) == 0 {
			return 0
		}
		return x * random.Float64()
	}
	list := func() (l []float32) {
		for range random.IntN(4) {
			l = append(l, float32(some(1)))
		}
		return l
	}
	for range 2000 {
		v := anomaly.Verdict{
			Score: float32(some(1)), IsAnomaly: random.IntN(2) == 0, Threshold: some(1), PValue: some(1), Level: anomaly.Level(random.IntN(4)),
			Contributions: list(), Expected: list(), TopFeature: []string{"", "latency"}[random.IntN(2)], DepthSum: some(500),
		}
		forest := random.IntN(2) == 0
		message := &anomalyv1.Verdict{
			Score: v.Score, IsAnomaly: v.IsAnomaly, Threshold: v.Threshold, PValue: v.PValue, Level: anomalyv1.Level(v.Level),
			Contributions: v.Contributions, Expected: v.Expected, TopFeature: v.TopFeature,
		}
		if forest {
			message.DepthSum = &v.DepthSum
		}
		for range random.IntN(5) {
			m := anomaly.MemberVerdict{Detector: anomaly.Detector(1 + random.IntN(300)), Weight: some(1)}
			member := &anomalyv1.MemberVerdict{Detector: anomalyv1.Detector(m.Detector), Weight: m.Weight}
			if random.IntN(3) == 0 {
				m.Missing = "it is not part of the set, nor of any other that has been looked at: " + string(make([]byte, random.IntN(200)))
				member.Missing = m.Missing
			} else {
				m.Score, m.Normalized = float32(some(9)), some(1)
				member.Score, member.Normalized = proto.Float32(m.Score), proto.Float64(m.Normalized)
			}
			v.Members, message.Members = append(v.Members, m), append(message.Members, member)
		}
		want, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
		require.NoError(t, err)
		require.Equal(t, want, append([]byte{}, appendVerdict(nil, &v, forest)...))
		require.Len(t, want, verdictSize(&v, forest))
	}
}

// TestEnsembleWithAMissingMemberIsServed: the answer names it (EN6).
func TestEnsembleWithAMissingMemberIsServed(t *testing.T) {
	folder := t.TempDir()
	require.NoError(t, testsets.WriteEnsemble(folder, referenceSet, moreSet))
	editManifest(t, folder, func(models []any) []any { return models[2:] })
	set, err := anomaly.OpenModelSet(folder)
	require.NoError(t, err)
	client := anomalyv1.NewScoringServiceClient(connect(t, start(t, set, 8, silent()).Addresses[0]))
	answer, err := client.Score(t.Context(), scoreRequestOf(ensemble, rowsOf(10)...))
	require.NoError(t, err)
	missing := answer.GetVerdict().GetMembers()[0]
	assert.Equal(t, "it is not part of the set", missing.GetMissing())
	assert.Zero(t, missing.GetWeight())
	assert.Nil(t, missing.Score)
	assert.Nil(t, missing.Normalized)

	editManifest(t, folder, func(models []any) []any { return models[len(models)-1:] })
	set, err = anomaly.OpenModelSet(folder)
	require.NoError(t, err)
	client = anomalyv1.NewScoringServiceClient(connect(t, start(t, set, 8, silent()).Addresses[0]))
	_, err = client.Score(t.Context(), scoreRequestOf(ensemble, rowsOf(10)...))
	assertRefused(t, err, anomaly.CodeDetectorUnavailable, "detector")
}
