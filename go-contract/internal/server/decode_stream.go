package server

import (
	"context"
	"fmt"
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	anomaly "dwcp.internal/anomaly"
)

// maxDetectors is how many detectors of the settings are kept: more than there are, so that the first fault can be told.
const maxDetectors = 1024

// streamSettings is dwcp.anomaly.v1.StreamSettings.
type streamSettings struct {
	detectors  []anomaly.Detector
	explain    anomaly.Explain
	modelSetID string
}

// streamSample is dwcp.anomaly.v1.StreamSample, its values and its name in the lists of the request.
type streamSample struct {
	// nameEnd and valuesEnd are where its own end; they begin where those of the sample before end.
	nameEnd, valuesEnd int
	restart            bool
}

// streamRequest is dwcp.anomaly.v1.ScoreStreamRequest.
type streamRequest struct {
	// hasSettings says whether settings were sent, be they empty.
	hasSettings bool
	settings    streamSettings
	// samples are at most one more than allowed, which is enough to refuse the request.
	samples []streamSample
	names   []byte
	values  []float64
}

// decode replaces what r holds.
func (r *streamRequest) decode(b []byte) error {
	r.hasSettings, r.settings = false, streamSettings{detectors: r.settings.detectors[:0]}
	r.samples, r.names, r.values = r.samples[:0], r.names[:0], r.values[:0]
	for len(b) > 0 {
		f, rest, err := nextField(b, maxNesting)
		if err != nil {
			return err
		}
		b = rest
		switch {
		case f.kind != protowire.BytesType:
		case f.number == 1:
			r.hasSettings = true
			err = r.settings.merge(f.bytes)
		case f.number == 2:
			err = r.sample(f.bytes)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// merge takes over the fields of a StreamSettings. A message that is sent in parts counts as one.
func (s *streamSettings) merge(b []byte) error {
	for len(b) > 0 {
		f, rest, err := nextField(b, maxNesting-1)
		if err != nil {
			return err
		}
		b = rest
		switch {
		case f.number == 1 && f.kind == protowire.VarintType:
			s.detector(f.varint)
		case f.number == 1 && f.kind == protowire.BytesType: // packed
			for list := f.bytes; len(list) > 0; {
				var value uint64
				if value, list, err = varint(list, 10); err != nil {
					return err
				}
				s.detector(value)
			}
		case f.number == 2 && f.kind == protowire.VarintType:
			s.explain = anomaly.Explain(int32(f.varint))
		case f.number == 3 && f.kind == protowire.BytesType:
			if !utf8.Valid(f.bytes) {
				return errMalformed
			}
			s.modelSetID = string(f.bytes)
		}
	}
	return nil
}

func (s *streamSettings) detector(number uint64) {
	if len(s.detectors) < maxDetectors {
		s.detectors = append(s.detectors, anomaly.Detector(int32(number)))
	}
}

// sample decodes one StreamSample.
func (r *streamRequest) sample(b []byte) error {
	nameStart, valuesStart := len(r.names), len(r.values)
	var sample streamSample
	for len(b) > 0 {
		f, rest, err := nextField(b, maxNesting-1)
		if err != nil {
			return err
		}
		b = rest
		switch {
		case f.number == 1 && f.kind == protowire.BytesType:
			if !utf8.Valid(f.bytes) {
				return errMalformed
			}
			r.names = append(r.names[:nameStart], f.bytes...) // the last one counts
		case f.number == 2 && f.kind == protowire.BytesType: // packed
			if len(f.bytes)%8 != 0 {
				return errMalformed
			}
			r.values = appendDoubles(r.values, f.bytes)
		case f.number == 2 && f.kind == protowire.Fixed64Type:
			r.values = appendDoubles(r.values, f.bytes)
		case f.number == 3 && f.kind == protowire.VarintType:
			sample.restart = f.varint != 0
		}
	}
	if len(r.samples) > anomaly.MaxStreamSamples {
		r.names, r.values = r.names[:nameStart], r.values[:valuesStart]
		return nil
	}
	sample.nameEnd, sample.valuesEnd = len(r.names), len(r.values)
	r.samples = append(r.samples, sample)
	return nil
}

// check refuses a request of too many samples (rule ST7).
func (r *streamRequest) check() error {
	if len(r.samples) > anomaly.MaxStreamSamples {
		return &anomaly.Error{
			Code: anomaly.CodeBatchTooLarge, Field: "samples",
			Message: fmt.Sprintf("more than %d samples; send the others in a request of their own", anomaly.MaxStreamSamples),
		}
	}
	return nil
}

// check refuses settings in the order of E2 (rule ST1).
func (s *streamSettings) check(ctx context.Context, l *live) error {
	if len(s.detectors) == 0 {
		return invalid("settings.detectors", "no detector is named; name at least one")
	}
	if len(s.detectors) == maxDetectors {
		return invalid("settings.detectors", "far more detectors are named than there are; name each once")
	}
	for i, d := range s.detectors {
		if slices.Contains(s.detectors[:i], d) {
			return invalid("settings.detectors", "%s is named twice; name each detector once", d)
		}
	}
	check := l.check
	if l.fleet != nil {
		check = l.fleet.check
	}
	for i, d := range s.detectors {
		if err := check(ctx, target{detector: d}); err != nil {
			return at(err, fmt.Sprintf("settings.detectors[%d]", i))
		}
	}
	if err := check(ctx, target{detector: s.detectors[0], modelSetID: s.modelSetID}); err != nil {
		return at(err, "settings.model_set_id")
	}
	if !knownExplain(s.explain) {
		return invalid("settings.explain", "explain is %d; the contract has no such value", s.explain)
	}
	return nil
}

// at gives an error another field.
func at(err error, field string) error {
	refusal := anomaly.AsError(err)
	if refusal.Code == anomaly.CodeInternal {
		return err
	}
	return &anomaly.Error{Code: refusal.Code, Field: field, Message: refusal.Message}
}
