package server

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	anomaly "dwcp.internal/anomaly"
)

// scorings are the windows of a stream and the models that score them.
type scorings struct {
	settings  streamSettings
	maxSeries int
	refusals  *prometheus.CounterVec

	// live is the set or the fleet of the last answer. What follows belongs to it.
	live *live
	// scorer is the set of live or, of a fleet, the one of the sample at hand; nil between requests. setID is its id in a fleet.
	scorer anomaly.Scorer
	setID  string
	// detectors has an entry for each of the settings.
	detectors []scoring
	// schema is the last model of which there is one; a sample has to have its features.
	schema *model
	// room is the number of samples that each window holds: as many as the longest one needs, or needed once.
	room   int
	series map[string]*window
}

// scoring is one detector of the settings with one model set.
type scoring struct {
	model *model
	// unavailable says why there is no model.
	unavailable *anomaly.Error
}

// turn is the memory of one request and its answer.
type turn struct {
	streamRequest
	outcomes []outcome
	rows     [][]float64
	out      pieces
}

// outcome is what one detector says of one sample: a verdict, unless there is an error.
type outcome struct {
	verdict anomaly.Verdict
	err     *anomaly.Error
	size    int
}

var turns = sync.Pool{New: func() any { return new(turn) }}

func (t *turn) release() {
	t.out.free()
	if cap(t.values) <= largestKept && cap(t.names) <= largestKept && cap(t.settings.detectors) < maxDetectors {
		turns.Put(t)
	}
}

// adopt goes over to a model set or a fleet. Windows stay when the features are the same (rule ST6), also while no detector can be scored.
func (c *scorings) adopt(ctx context.Context, l *live) {
	c.live = l
	if l.fleet != nil {
		if c.schema != nil && !slices.Equal(c.schema.features, l.fleet.features) {
			for _, w := range c.series {
				*w = window{}
			}
		}
		c.schema, c.room = &model{features: l.fleet.features}, max(c.room, 1)
		return
	}
	c.use(ctx, l)
}

// use has a model set score what comes.
func (c *scorings) use(ctx context.Context, l *live) {
	room, schema := c.room, c.schema
	c.scorer, c.detectors = l.scorer, c.detectors[:0]
	for _, d := range c.settings.detectors {
		s := scoring{model: l.model(d)}
		if s.model == nil {
			err := anomaly.AsError(l.check(ctx, target{detector: d}))
			s.unavailable = &anomaly.Error{Code: err.Code, Field: err.Field, Message: anomaly.ToStatus(err).Message()}
		} else {
			room = max(room, s.model.window)
			schema = s.model
		}
		c.detectors = append(c.detectors, s)
	}
	switch {
	case c.schema != nil && !slices.Equal(c.schema.features, schema.features):
		for _, w := range c.series {
			*w = window{}
		}
	case room != c.room:
		for _, w := range c.series {
			w.resize(c.room, room, len(schema.features))
		}
	}
	c.room, c.schema = room, schema
}

// score writes the answer to a request: a result for each sample, and the id of the set.
func (c *scorings) score(ctx context.Context, l *live, t *turn) error {
	if c.live != l {
		c.adopt(ctx, l)
	}
	for len(t.outcomes) < len(c.settings.detectors) {
		t.outcomes = append(t.outcomes, outcome{})
	}
	outcomes := t.outcomes[:len(c.settings.detectors)]
	if l.fleet != nil {
		defer func() { c.scorer, c.setID = nil, "" }() // it may be closed between two requests (rule FL5)
	}
	var refusal *anomaly.Error
	var before []byte
	var w *window
	nameStart, valuesStart := 0, 0
	for i, sample := range t.samples {
		if i%64 == 63 && ctx.Err() != nil {
			return status.FromContextError(ctx.Err()).Err()
		}
		name, values := t.names[nameStart:sample.nameEnd], t.values[valuesStart:sample.valuesEnd]
		nameStart, valuesStart = sample.nameEnd, sample.valuesEnd
		if i == 0 || !bytes.Equal(name, before) {
			var err error
			if refusal, err = c.choose(ctx, i, name); err != nil {
				return err
			}
			if refusal == nil {
				if w, err = c.window(i, name); err != nil {
					return err
				}
			}
			before = name
		}
		if refusal != nil {
			c.refuse(name, refusal, outcomes)
			c.write(&t.out, outcomes, len(t.samples)-i)
			continue
		}
		if sample.restart {
			w.restart()
		}
		if err := c.sample(ctx, w, values, outcomes, t); err != nil {
			return err
		}
		c.write(&t.out, outcomes, len(t.samples)-i)
	}
	size := fieldSize(len(l.id))
	t.out.room(size, size)
	t.out.now = protowire.AppendString(append(t.out.now, tag(2, protowire.BytesType)), l.id)
	return nil
}

// choose goes over to the set of the series of sample i, where there is a fleet. A refusal is the error of the sample (rule FL8); a name
// that is too long ends the stream (ST7).
func (c *scorings) choose(ctx context.Context, i int, name []byte) (refusal *anomaly.Error, err error) {
	if c.live.fleet == nil {
		return nil, nil
	}
	if err := checkName(i, name); err != nil {
		return nil, err
	}
	l, err := c.live.choose(string(name))
	if err != nil {
		refusal := anomaly.AsError(err)
		return &anomaly.Error{Code: refusal.Code, Field: refusal.Field, Message: anomaly.ToStatus(refusal).Message()}, nil
	}
	if l.id != c.setID {
		c.use(ctx, l)
		c.setID = l.id
	}
	return nil, nil
}

// refuse gives a sample of a series that nothing scores. Nothing is kept of it: a name that nobody knows must not take a place.
func (c *scorings) refuse(name []byte, refusal *anomaly.Error, outcomes []outcome) {
	c.refusals.WithLabelValues(refusal.Code.String()).Inc()
	if w := c.series[string(name)]; w != nil {
		w.restart()
	}
	for k := range outcomes {
		outcomes[k].err = refusal
	}
}

func checkName(i int, name []byte) error {
	if len(name) > anomaly.MaxSeriesBytes {
		return invalid(fmt.Sprintf("samples[%d].series", i), "the name has %d bytes; at most %d are allowed", len(name), anomaly.MaxSeriesBytes)
	}
	return nil
}

// window gives the window of the series of sample i, new for a name that was not there (rules ST7, ST8, L4).
func (c *scorings) window(i int, name []byte) (*window, error) {
	if w := c.series[string(name)]; w != nil {
		return w, nil
	}
	if err := checkName(i, name); err != nil {
		return nil, err
	}
	if len(c.series) >= c.maxSeries {
		return nil, status.Errorf(codes.ResourceExhausted, "the stream holds %d series already; open another one for others", c.maxSeries)
	}
	w := new(window)
	c.series[string(name)] = w
	return w, nil
}

// sample scores one sample with each detector.
func (c *scorings) sample(ctx context.Context, w *window, values []float64, outcomes []outcome, t *turn) error {
	fault := c.fault(values)
	if fault != nil {
		w.restart() // rule ST4
		c.refusals.WithLabelValues(fault.Code.String()).Inc()
	} else {
		w.push(values, c.room)
	}
	for k := range outcomes {
		o, m := &outcomes[k], c.detectors[k].model
		switch {
		case fault != nil:
			o.err = fault
		case m == nil:
			o.err = c.detectors[k].unavailable
		case w.count < m.window:
			o.err = sampleError(anomaly.CodeWindowTooShort, "values", "%d samples; the window of the model has %d", w.count, m.window)
		default:
			o.err = nil
			t.rows = w.last(m.window, c.room, len(values), t.rows[:0])
			request := anomaly.Request{Detector: m.detector, Samples: t.rows, Explain: c.settings.explain}
			if err := c.scorer.Score(ctx, request, &o.verdict); err != nil {
				return err // all that can be wrong with a sample is checked
			}
			m.verdict(&o.verdict)
			m.recent.add(values)
		}
	}
	return nil
}

// fault is what is wrong with a sample (rule ST5).
func (c *scorings) fault(values []float64) *anomaly.Error {
	names := c.schema.features
	if len(values) != len(names) {
		return sampleError(anomaly.CodeWrongWidth, "values", "%d values; the schema has %d features", len(values), len(names))
	}
	for j, x := range values {
		if x-x != 0 { // NaN or infinite
			word := "infinite"
			if math.IsNaN(x) {
				word = "NaN"
			}
			return sampleError(anomaly.CodeNotFinite, "values."+names[j], "the value is %s; only finite values are scored", word)
		}
	}
	return nil
}

func sampleError(code anomaly.Code, field, format string, args ...any) *anomaly.Error {
	return &anomaly.Error{Code: code, Field: field, Message: fmt.Sprintf(format, args...)}
}

// write appends a StreamResult. left is how many results are still to come, this one included.
func (c *scorings) write(out *pieces, outcomes []outcome, left int) {
	size, setID := 0, ""
	for k := range outcomes {
		o := &outcomes[k]
		if o.err == nil {
			setID = c.setID
		}
		if o.err != nil {
			o.size = errorSize(o.err)
		} else {
			o.size = verdictSize(&o.verdict, c.settings.detectors[k] == anomaly.IsolationForest)
		}
		size += fieldSize(fieldSize(o.size))
	}
	if setID != "" { // rule FL8
		size += fieldSize(len(setID))
	}
	out.room(fieldSize(size), left*fieldSize(size)+idFieldSize)
	b := appendHead(out.now, 1, size)
	for k := range outcomes {
		o := &outcomes[k]
		b = appendHead(b, 1, fieldSize(o.size))
		if o.err != nil {
			b = appendError(appendHead(b, 2, o.size), o.err)
		} else {
			b = appendVerdict(appendHead(b, 1, o.size), &o.verdict, c.settings.detectors[k] == anomaly.IsolationForest)
		}
	}
	if setID != "" {
		b = protowire.AppendString(append(b, tag(2, protowire.BytesType)), setID)
	}
	out.now = b
}

// idFieldSize is the number of bytes of a model set's id with its head.
const idFieldSize = 1 + 1 + 64
