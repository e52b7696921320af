package server

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	anomaly "dwcp.internal/anomaly"
	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
	oipv2 "dwcp.internal/anomaly/gen/dwcp/oip/v2"
)

// lent is a scorer that answers for every detector of the contract with the scores of the forest, without its depth sums: what the
// server does with a detector must not depend on a list of those that it knows.
type lent struct{ anomaly.Scorer }

func (l lent) Metadata(d anomaly.Detector) *anomalyv1.ModelMetadata {
	m := proto.CloneOf(l.Scorer.Metadata(forest))
	m.ModelType = d.String()
	if d == lstm { // a window of one sample is a window (O2)
		m.Timesteps = proto.Uint32(1)
	}
	return m
}

func (l lent) Score(ctx context.Context, request anomaly.Request, verdict *anomaly.Verdict) error {
	request.Detector = forest
	return l.Scorer.Score(ctx, request, verdict)
}

func (l lent) ScoreBatch(ctx context.Context, request anomaly.BatchRequest, verdict *anomaly.BatchVerdict) error {
	d := request.Detector
	request.Detector = forest
	err := l.Scorer.ScoreBatch(ctx, request, verdict)
	if d != forest {
		verdict.DepthSums = nil
	}
	return err
}

// TestEveryDetectorIsServed: each has metadata, health, unary calls, batches, streams and the inference protocol; items are single
// samples but where there is a window (O2), and only a forest has a depth sum.
func TestEveryDetectorIsServed(t *testing.T) {
	connection := connect(t, start(t, lent{openReference(t)}, 8, silent()).Addresses[0])
	own, inference := anomalyv1.NewScoringServiceClient(connection), oipv2.NewGRPCInferenceServiceClient(connection)
	set, err := own.GetModelSet(t.Context(), &anomalyv1.GetModelSetRequest{})
	require.NoError(t, err)
	require.Len(t, set.GetModels(), len(anomaly.Detectors()))
	for _, d := range anomaly.Detectors() {
		_, err := anomaly.ParseDetector(d.String())
		require.NoError(t, err)
		one, err := own.Score(t.Context(), &anomalyv1.ScoreRequest{
			Detector: anomalyv1.Detector(d), Samples: []*anomalyv1.Sample{{Values: row()}}, Explain: anomalyv1.Explain_EXPLAIN_ALWAYS,
		})
		require.NoError(t, err, d)
		assert.Equal(t, d == forest, one.GetVerdict().DepthSum != nil, d)

		stream, err := own.ScoreStream(t.Context())
		require.NoError(t, err)
		require.NoError(t, stream.Send(&anomalyv1.ScoreStreamRequest{
			Settings: &anomalyv1.StreamSettings{Detectors: []anomalyv1.Detector{anomalyv1.Detector(d)}},
			Samples:  []*anomalyv1.StreamSample{{Series: "a", Values: row()}},
		}))
		answer, err := stream.Recv()
		require.NoError(t, err, d)
		verdict := answer.GetResults()[0].GetVerdicts()[0]
		require.Nil(t, verdict.GetError(), d)
		assert.Equal(t, d == forest, verdict.GetVerdict().DepthSum != nil, d)
		require.NoError(t, stream.CloseSend())

		shape, outputs := []int64{-1, 7}, 7
		switch d {
		case forest:
			outputs = 8
		case lstm:
			shape = []int64{-1, 1, 7}
		}
		model, err := inference.ModelMetadata(t.Context(), &oipv2.ModelMetadataRequest{Name: d.String()})
		require.NoError(t, err)
		assert.Equal(t, shape, model.GetInputs()[0].GetShape(), d)
		assert.Len(t, model.GetOutputs(), outputs, d)
		r := inferRequestOf(d, 2, row(), row())
		r.Inputs[0].Shape = append([]int64{2}, shape[1:]...)
		inferred, err := inference.ModelInfer(t.Context(), r)
		require.NoError(t, err, d)
		assert.Len(t, inferred.GetOutputs(), outputs, d)
	}
}
