package server

import (
	"context"
	"errors"
	"slices"
	"sync"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	anomaly "dwcp.internal/anomaly"
	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

var (
	scoreCalls = sync.Pool{New: func() any { return new(scoreCall) }}
	batchCalls = sync.Pool{New: func() any { return new(batchCall) }}
)

// largestKept is the number of values above which the memory of a call is let go: one large request must not cost memory for good.
const largestKept = 1 << 17

// scoreCall is a call of Score.
type scoreCall struct {
	scoreRequest
	verdict anomaly.Verdict
	// setID is the id of the set that gave the verdict.
	setID string
}

func (c *scoreCall) release() {
	if cap(c.values) <= largestKept {
		scoreCalls.Put(c)
	}
}

func (c *scoreCall) run(ctx context.Context, _ *service, l *live) error {
	l, err := l.choose(c.series)
	if err != nil {
		return err
	}
	if err := l.checkExplain(ctx, c.target); err != nil {
		return err
	}
	request := anomaly.Request{Detector: c.detector, Samples: c.samples, Explain: c.explain, ModelSetID: c.modelSetID}
	if err := l.scorer.Score(ctx, request, &c.verdict); err != nil {
		return err
	}
	c.setID = l.id
	m := l.model(c.detector)
	m.verdict(&c.verdict)
	m.recent.add(c.samples[len(c.samples)-1])
	return nil
}

// encode writes a ScoreResponse.
func (c *scoreCall) encode() mem.BufferSlice {
	defer c.release()
	forest := c.detector == anomaly.IsolationForest
	size := verdictSize(&c.verdict, forest)
	b := make([]byte, 0, fieldSize(size)+fieldSize(len(c.setID)))
	b = appendVerdict(appendHead(b, 1, size), &c.verdict, forest)
	b = protowire.AppendString(append(b, tag(2, protowire.BytesType)), c.setID)
	return mem.BufferSlice{mem.SliceBuffer(b)}
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

func (c *batchCall) run(ctx context.Context, _ *service, l *live) error {
	l, err := l.choose(c.series)
	if err != nil {
		return err
	}
	if err := l.checkExplain(ctx, c.target); err != nil {
		return err
	}
	request := anomaly.BatchRequest{
		Detector: c.detector, Rows: c.rows, Layout: c.layout, Explain: c.explain, ModelSetID: c.modelSetID,
	}
	if c.rest != 0 {
		request.Rows = nil // what comes before the rows in the order of E2 is refused by the scorer
	}
	if err := l.scorer.ScoreBatch(ctx, request, &c.verdict); err != nil {
		if c.rest != 0 && errors.Is(err, anomaly.CodeNoSamples) {
			return invalid("rows", "%d bytes are no whole number of float64 values", 8*len(c.rows)+c.rest)
		}
		return err
	}
	v, to := &c.verdict, &c.answer
	m := l.model(c.detector)
	m.batch(v)
	m.seen(c.rows, c.layout, len(v.Scores))
	c.levels = slices.Grow(c.levels[:0], len(v.Levels))
	for _, level := range v.Levels {
		c.levels = append(c.levels, anomalyv1.Level(level))
	}
	to.Scores, to.IsAnomaly, to.PValues, to.Levels = v.Scores, v.IsAnomaly, v.PValues, c.levels
	to.Contributions, to.Expected, to.DepthSums = v.Contributions, v.Expected, v.DepthSums
	to.Threshold, to.ModelSetId = v.Threshold, l.id
	return nil
}

// knownExplain says whether the contract has a value.
func knownExplain(e anomaly.Explain) bool {
	_, ok := anomalyv1.Explain_name[int32(e)]
	return ok
}

// checkExplain refuses values that the contract does not have. It comes after detector and model set (E2).
func (l *live) checkExplain(ctx context.Context, t target) error {
	if knownExplain(t.explain) {
		return nil
	}
	if err := l.check(ctx, t); err != nil {
		return err
	}
	return invalid("explain", "explain is %d; the contract has no such value", t.explain)
}

// modelSetCall is a call of GetModelSet. Where there is one set, all calls give the same message.
type modelSetCall struct {
	series string
	answer *anomalyv1.GetModelSetResponse
}

// decode reads a GetModelSetRequest.
func (c *modelSetCall) decode(b []byte) error {
	for len(b) > 0 {
		f, rest, err := nextField(b, maxNesting)
		if err == nil && f.number == 1 && f.kind == protowire.BytesType {
			c.series, err = text(f.bytes)
		}
		if err != nil {
			return err
		}
		b = rest
	}
	return nil
}

func (c *modelSetCall) message() proto.Message { return c.answer }
func (c *modelSetCall) release()               {}

func (c *modelSetCall) run(_ context.Context, _ *service, l *live) error {
	if l.fleet != nil && c.series == "" { // rule FL9
		c.answer = l.modelSet
		return nil
	}
	chosen, err := l.choose(c.series)
	if err != nil {
		return err
	}
	if c.answer = chosen.modelSet; c.answer == nil {
		c.answer = describe(chosen.scorer)
		c.answer.FleetId = l.id
	}
	return nil
}
