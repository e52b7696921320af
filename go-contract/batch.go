package anomaly

import (
	"context"
	"slices"
	"sync"
)

// windows are buffers for the values of one window.
var windows = sync.Pool{New: func() any { return new([]float64) }}

// ScoreBatch scores many samples or windows in this process, each to the same bits as Score (rule W4).
func (s *ModelSet) ScoreBatch(ctx context.Context, request BatchRequest, verdict *BatchVerdict) error {
	m, refusal := s.model(request.Detector, request.ModelSetID)
	if refusal != nil {
		return refusal
	}
	count, stride, refusal := m.shape.checkBatch(request.Rows, request.Layout)
	if refusal != nil {
		return refusal
	}
	width := len(m.shape.names)
	verdict.reset(count, width, request.Explain)
	if err := m.scoreItems(ctx, request.Rows, count, stride, request.Explain, verdict); err != nil {
		return AsError(err)
	}
	if request.Detector != IsolationForest {
		verdict.DepthSums = verdict.DepthSums[:0]
	}
	verdict.Threshold = m.metadata.GetThreshold()
	for i, score := range verdict.Scores {
		verdict.PValues[i], verdict.Levels[i] = m.calibration.judge(score, verdict.IsAnomaly[i])
	}
	return nil
}

// scoreItems scores count items, each the first values of rows at a distance of stride values from the one before.
func (m *model) scoreItems(ctx context.Context, rows []float64, count, stride int, explain Explain, verdict *BatchVerdict) error {
	if fast, ok := m.engine.(batchEngine); ok {
		return fast.scoreBatch(ctx, rows, count, stride, explain, verdict)
	}
	var one Verdict
	width, window := len(m.shape.names), len(m.shape.names)*m.shape.timesteps
	for i := range count {
		if i%64 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := m.engine.score(rows[i*stride:][:window], explain, &one); err != nil {
			return err
		}
		verdict.Scores[i], verdict.IsAnomaly[i], verdict.DepthSums[i] = one.Score, one.IsAnomaly, one.DepthSum
		verdict.explain(i, width, one.Contributions, one.Expected)
	}
	return nil
}

// reset makes room for count items. Rows of items that are not explained stay 0.
func (v *BatchVerdict) reset(count, width int, explain Explain) {
	v.Scores = slices.Grow(v.Scores[:0], count)[:count]
	v.IsAnomaly = slices.Grow(v.IsAnomaly[:0], count)[:count]
	v.PValues = slices.Grow(v.PValues[:0], count)[:count]
	v.Levels = slices.Grow(v.Levels[:0], count)[:count]
	v.DepthSums = slices.Grow(v.DepthSums[:0], count)[:count]
	v.Contributions, v.Expected = v.Contributions[:0], v.Expected[:0]
	if explain != ExplainNever {
		v.Contributions = slices.Grow(v.Contributions, count*width)[:count*width]
		v.Expected = slices.Grow(v.Expected, count*width)[:count*width]
		clear(v.Contributions)
		clear(v.Expected)
	}
}

// explain stores the explanation of item i; there may be none.
func (v *BatchVerdict) explain(i, width int, contributions, expected []float32) {
	if len(contributions) == width {
		copy(v.Contributions[i*width:], contributions)
		copy(v.Expected[i*width:], expected)
	}
}

// explainAlarms explains the anomalies among items of size values that stand stride values apart. score scores and explains windows that
// stand side by side.
func (v *BatchVerdict) explainAlarms(
	rows []float64, size, stride, width int, score func(windows []float64, count int, explained *BatchVerdict) error,
) error {
	var alarms []float64
	var items []int
	for i, alarm := range v.IsAnomaly {
		if alarm {
			items = append(items, i)
			alarms = append(alarms, rows[i*stride:][:size]...)
		}
	}
	if len(items) == 0 {
		return nil
	}
	var explained BatchVerdict
	explained.reset(len(items), width, ExplainAlways)
	if err := score(alarms, len(items), &explained); err != nil {
		return err
	}
	for k, i := range items {
		v.explain(i, width, explained.Contributions[k*width:][:width], explained.Expected[k*width:][:width])
	}
	return nil
}
