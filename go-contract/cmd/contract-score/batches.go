package main

import (
	"context"
	"slices"

	anomaly "dwcp.internal/anomaly"
	"dwcp.internal/anomaly/internal/jsonlines"
)

// batcher answers all lines of a chunk with one call of the batch API per detector. A batch holds windows of one length, so what is
// wrong with a single request is found here, by the rules of E2, and only good requests are sent.
type batcher struct {
	requests []jsonlines.Request
	answers  []pending
	rows     []float64
	items    []int
	batch    anomaly.BatchVerdict
	verdict  anomaly.Verdict
}

// pending is a request's way to its answer: an error, or its place in a batch.
type pending struct {
	refusal  *anomaly.Error
	detector anomaly.Detector
	verdict  anomaly.Verdict
}

func (b *batcher) answer(ctx context.Context, s *settings, c *chunk, to []byte) []byte {
	b.requests = slices.Grow(b.requests[:0], len(c.ends))[:len(c.ends)]
	b.answers = slices.Grow(b.answers[:0], len(c.ends))[:len(c.ends)]
	start := 0
	for i, end := range c.ends {
		b.answers[i].refusal, b.answers[i].detector = b.parse(s, i, c.text[start:end])
		start = end
	}
	for _, d := range anomaly.Detectors() {
		b.score(ctx, s, d)
	}
	for i := range b.answers {
		a := &b.answers[i]
		if a.refusal != nil {
			to = jsonlines.AppendError(to, b.requests[i].ID, a.refusal)
		} else {
			to = jsonlines.AppendVerdict(to, b.requests[i].ID, a.detector, &a.verdict)
		}
	}
	return to
}

func (b *batcher) parse(s *settings, i int, line []byte) (*anomaly.Error, anomaly.Detector) {
	r := &b.requests[i]
	if refusal := r.Parse(line); refusal != nil {
		return refusal, 0
	}
	detector, err := anomaly.ParseDetector(r.Detector)
	if err == nil {
		err = anomaly.CheckRequest(s.scorer, detector, r.Samples)
	}
	if err != nil {
		return anomaly.AsError(err), detector
	}
	return nil, detector
}

// score scores the good requests of one detector. Each contributes its last window.
func (b *batcher) score(ctx context.Context, s *settings, detector anomaly.Detector) {
	b.rows, b.items = b.rows[:0], b.items[:0]
	for i := range b.answers {
		if b.answers[i].refusal != nil || b.answers[i].detector != detector {
			continue
		}
		samples := b.requests[i].Samples
		for _, sample := range samples[len(samples)-anomaly.WindowLength(s.scorer, detector):] {
			b.rows = append(b.rows, sample...)
		}
		b.items = append(b.items, i)
	}
	if len(b.items) == 0 {
		return
	}
	err := s.scorer.ScoreBatch(ctx, anomaly.BatchRequest{Detector: detector, Rows: b.rows, Explain: anomaly.ExplainAlways}, &b.batch)
	width := len(s.scorer.Metadata(detector).GetFeatureNames())
	for k, i := range b.items {
		a := &b.answers[i]
		if err != nil {
			a.refusal = anomaly.AsError(err)
			continue
		}
		b.batch.Item(k, width, &a.verdict)
	}
}
