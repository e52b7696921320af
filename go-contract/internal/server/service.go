package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	anomaly "dwcp.internal/anomaly"
	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

var (
	scoreCalls    = sync.Pool{New: func() any { return new(scoreCall) }}
	batchCalls    = sync.Pool{New: func() any { return new(batchCall) }}
	modelSetCalls = sync.Pool{New: func() any { return new(modelSetCall) }}
)

// largestKept is the number of values above which the memory of a call is let go: one large request must not cost memory for good.
const largestKept = 1 << 17

// scoreCall is a call of Score.
type scoreCall struct {
	scoreRequest
	verdict anomaly.Verdict

	answer        anomalyv1.ScoreResponse
	answerVerdict anomalyv1.Verdict
	depthSum      float64
}

func (c *scoreCall) message() proto.Message { return &c.answer }

func (c *scoreCall) release() {
	if cap(c.values) <= largestKept {
		scoreCalls.Put(c)
	}
}

func (c *scoreCall) run(ctx context.Context, s *service) error {
	if err := s.checkExplain(ctx, c.target); err != nil {
		return err
	}
	request := anomaly.Request{Detector: c.detector, Samples: c.samples, Explain: c.explain, ModelSetID: c.modelSetID}
	if err := s.scorer.Score(ctx, request, &c.verdict); err != nil {
		return err
	}
	v, to := &c.verdict, &c.answerVerdict
	to.Score, to.IsAnomaly, to.Threshold = v.Score, v.IsAnomaly, v.Threshold
	to.PValue, to.Level = v.PValue, anomalyv1.Level(v.Level)
	to.Contributions, to.Expected, to.TopFeature = v.Contributions, v.Expected, v.TopFeature
	to.DepthSum = nil
	if c.detector == anomaly.IsolationForest {
		c.depthSum = v.DepthSum
		to.DepthSum = &c.depthSum
	}
	c.answer.Verdict, c.answer.ModelSetId = to, s.modelSet.GetModelSetId()
	return nil
}

// batchCall is a call of ScoreBatch.
type batchCall struct {
	batchRequest
	verdict anomaly.BatchVerdict
	levels  []anomalyv1.Level
	answer  anomalyv1.ScoreBatchResponse
}

func (c *batchCall) message() proto.Message { return &c.answer }

func (c *batchCall) release() {
	if cap(c.rows)+cap(c.verdict.Expected) <= largestKept {
		batchCalls.Put(c)
	}
}

func (c *batchCall) run(ctx context.Context, s *service) error {
	if err := s.checkExplain(ctx, c.target); err != nil {
		return err
	}
	request := anomaly.BatchRequest{
		Detector: c.detector, Rows: c.rows, Layout: c.layout, Explain: c.explain, ModelSetID: c.modelSetID,
	}
	if c.rest != 0 {
		request.Rows = nil // what comes before the rows in the order of E2 is refused by the scorer
	}
	if err := s.scorer.ScoreBatch(ctx, request, &c.verdict); err != nil {
		if c.rest != 0 && errors.Is(err, anomaly.CodeNoSamples) {
			return invalid("rows", "%d bytes are no whole number of float64 values", 8*len(c.rows)+c.rest)
		}
		return err
	}
	v, to := &c.verdict, &c.answer
	c.levels = slices.Grow(c.levels[:0], len(v.Levels))
	for _, level := range v.Levels {
		c.levels = append(c.levels, anomalyv1.Level(level))
	}
	to.Scores, to.IsAnomaly, to.PValues, to.Levels = v.Scores, v.IsAnomaly, v.PValues, c.levels
	to.Contributions, to.Expected, to.DepthSums = v.Contributions, v.Expected, v.DepthSums
	to.Threshold, to.ModelSetId = v.Threshold, s.modelSet.GetModelSetId()
	return nil
}

// checkExplain refuses values that the contract does not have. It comes after detector and model set (E2): these the scorer refuses.
func (s *service) checkExplain(ctx context.Context, t target) error {
	if _, ok := anomalyv1.Explain_name[int32(t.explain)]; ok {
		return nil
	}
	err := s.scorer.Score(ctx, anomaly.Request{Detector: t.detector, ModelSetID: t.modelSetID}, new(anomaly.Verdict))
	if !errors.Is(err, anomaly.CodeNoSamples) {
		return err
	}
	return invalid("explain", "explain is %d; the contract has no such value", t.explain)
}

func invalid(field, format string, args ...any) error {
	return &anomaly.Error{Code: anomaly.CodeInvalidRequest, Field: field, Message: fmt.Sprintf(format, args...)}
}

// modelSetCall is a call of GetModelSet. All calls give the same message.
type modelSetCall struct {
	answer *anomalyv1.GetModelSetResponse
}

func (c *modelSetCall) decode(b []byte) error  { return decodeNothing(b) }
func (c *modelSetCall) message() proto.Message { return c.answer }
func (c *modelSetCall) release()               { modelSetCalls.Put(c) }

func (c *modelSetCall) run(_ context.Context, s *service) error {
	c.answer = s.modelSet
	return nil
}

// describe is the answer of GetModelSet: metadata of the models that can be scored, without calibration scores and history.
func describe(scorer anomaly.Scorer) *anomalyv1.GetModelSetResponse {
	answer := &anomalyv1.GetModelSetResponse{ModelSetId: scorer.ID()}
	for _, d := range anomaly.Detectors() {
		metadata := scorer.Metadata(d)
		if metadata == nil {
			continue
		}
		short := proto.CloneOf(metadata)
		if short.Calibration != nil {
			short.Calibration.Scores = nil
		}
		if short.Training != nil {
			short.Training.History = nil
		}
		answer.Models = append(answer.Models, short)
	}
	return answer
}
