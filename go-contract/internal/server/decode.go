package server

import (
	"slices"

	anomaly "dwcp.internal/anomaly"
	"google.golang.org/protobuf/encoding/protowire"
)

// The requests are decoded here instead of by generated code, because that makes an object of every sample: a hostile message within
// the size limit would become gigabytes. It also lets a call decode into the memory of an earlier one. What these functions accept
// and what they read is what the generated code does, but for the limits of nextField; a fuzz test compares them.

// target is what Score and ScoreBatch have in common.
type target struct {
	detector   anomaly.Detector
	explain    anomaly.Explain
	modelSetID string
	series     string
}

// scoreRequest is dwcp.anomaly.v1.ScoreRequest, its samples in one piece.
type scoreRequest struct {
	target
	samples [][]float64

	values []float64
	ends   []int
}

// decode replaces what r holds. Of samples beyond the limit of W3 it keeps one, which is enough to refuse the request.
func (r *scoreRequest) decode(b []byte) error {
	r.target, r.values, r.ends = target{}, r.values[:0], r.ends[:0]
	for len(b) > 0 {
		f, rest, err := nextField(b, maxNesting)
		if err != nil {
			return err
		}
		b = rest
		switch {
		case f.number == 1 && f.kind == protowire.VarintType:
			r.detector = anomaly.Detector(int32(f.varint))
		case f.number == 2 && f.kind == protowire.BytesType:
			err = r.sample(f.bytes)
		case f.number == 3 && f.kind == protowire.VarintType:
			r.explain = anomaly.Explain(int32(f.varint))
		case f.number == 4 && f.kind == protowire.BytesType:
			r.modelSetID, err = text(f.bytes)
		case f.number == 5 && f.kind == protowire.BytesType:
			r.series, err = text(f.bytes)
		}
		if err != nil {
			return err
		}
	}
	r.slice()
	return nil
}

// sample decodes one Sample.
func (r *scoreRequest) sample(b []byte) error {
	start := len(r.values)
	for len(b) > 0 {
		f, rest, err := nextField(b, maxNesting-1)
		if err != nil {
			return err
		}
		b = rest
		if f.number != 1 {
			continue
		}
		switch f.kind {
		case protowire.BytesType: // packed
			if len(f.bytes)%8 != 0 {
				return errMalformed
			}
			r.values = appendDoubles(r.values, f.bytes)
		case protowire.Fixed64Type:
			r.values = appendDoubles(r.values, f.bytes)
		}
	}
	if len(r.ends) > anomaly.MaxSamples {
		r.values = r.values[:start]
		return nil
	}
	r.ends = append(r.ends, len(r.values))
	return nil
}

// slice cuts values into samples, once they do not move any more.
func (r *scoreRequest) slice() {
	r.samples = slices.Grow(r.samples[:0], len(r.ends))
	start := 0
	for _, end := range r.ends {
		r.samples = append(r.samples, r.values[start:end:end])
		start = end
	}
}

// batchRequest is dwcp.anomaly.v1.ScoreBatchRequest.
type batchRequest struct {
	target
	layout anomaly.BatchLayout
	rows   []float64
	// rest is the number of bytes behind the last whole value.
	rest int
}

// decode replaces what r holds.
func (r *batchRequest) decode(b []byte) error {
	r.target, r.layout, r.rows, r.rest = target{}, 0, r.rows[:0], 0
	var rows []byte
	for len(b) > 0 {
		f, rest, err := nextField(b, maxNesting)
		if err != nil {
			return err
		}
		b = rest
		switch {
		case f.number == 1 && f.kind == protowire.VarintType:
			r.detector = anomaly.Detector(int32(f.varint))
		case f.number == 2 && f.kind == protowire.BytesType:
			rows = f.bytes
		case f.number == 3 && f.kind == protowire.VarintType:
			r.layout = anomaly.BatchLayout(int32(f.varint))
		case f.number == 4 && f.kind == protowire.VarintType:
			r.explain = anomaly.Explain(int32(f.varint))
		case f.number == 5 && f.kind == protowire.BytesType:
			r.modelSetID, err = text(f.bytes)
		case f.number == 6 && f.kind == protowire.BytesType:
			r.series, err = text(f.bytes)
		}
		if err != nil {
			return err
		}
	}
	r.rows, r.rest = appendDoubles(slices.Grow(r.rows, len(rows)/8), rows), len(rows)%8
	return nil
}

// decodeNothing reads a message without fields, such as dwcp.anomaly.v1.ReloadRequest.
func decodeNothing(b []byte) (err error) {
	for len(b) > 0 && err == nil {
		_, b, err = nextField(b, maxNesting)
	}
	return err
}
