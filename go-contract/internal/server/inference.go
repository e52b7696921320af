package server

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	anomaly "dwcp.internal/anomaly"
	oipv2 "dwcp.internal/anomaly/gen/dwcp/oip/v2"
)

// This file is inference.GRPCInferenceService, the Open Inference Protocol (rules O1 to O4).

// Name and version of the server, and the platform of its models, as the protocol asks for them.
const (
	serverName     = "dwcp-sidecar"
	serverPlatform = "dwcp"
)

var serverVersion = fmt.Sprint(anomaly.SchemaVersion)

// find gives the model of a name and a version. What is wrong with one of them is NOT_FOUND (rule O1), and so is a fleet: the protocol
// names no series (rule FL9).
func (l *live) find(ctx context.Context, name, version string) (*model, error) {
	if l.fleet != nil {
		return nil, &anomaly.Error{
			Code: anomaly.CodeUnknownSeries, Field: "series",
			Message: "this server has a fleet, and the protocol names no series; use " + fullName,
		}
	}
	missing := func(err error, field string) error {
		refusal := anomaly.AsError(err)
		return notFound{&anomaly.Error{Code: refusal.Code, Field: field, Message: refusal.Message}}
	}
	d, err := anomaly.ParseDetector(name)
	if err != nil {
		return nil, missing(err, "model_name")
	}
	m := l.model(d)
	if m == nil {
		return nil, missing(l.check(ctx, target{detector: d}), "model_name")
	}
	if version != "" && version != l.id {
		return nil, missing(l.check(ctx, target{detector: d, modelSetID: version}), "model_version")
	}
	return m, nil
}

// plainCall is a call with a small answer, whose memory is not used again.
type plainCall[M proto.Message] struct{ answer M }

func (c *plainCall[M]) message() proto.Message { return c.answer }
func (c *plainCall[M]) release()               {}

// nothingCall is a plainCall whose request has no fields.
type nothingCall[M proto.Message] struct{ plainCall[M] }

func (c *nothingCall[M]) decode(b []byte) error { return decodeNothing(b) }

type serverLiveCall struct {
	nothingCall[*oipv2.ServerLiveResponse]
}

func (c *serverLiveCall) run(context.Context, *service, *live) error {
	c.answer = &oipv2.ServerLiveResponse{Live: true}
	return nil
}

type serverReadyCall struct {
	nothingCall[*oipv2.ServerReadyResponse]
}

func (c *serverReadyCall) run(_ context.Context, s *service, _ *live) error {
	c.answer = &oipv2.ServerReadyResponse{Ready: !s.draining.Load()}
	return nil
}

type modelReadyCall struct {
	namesRequest
	plainCall[*oipv2.ModelReadyResponse]
}

func (c *modelReadyCall) run(ctx context.Context, s *service, l *live) error {
	_, err := l.find(ctx, c.model, c.version)
	c.answer = &oipv2.ModelReadyResponse{Ready: err == nil && !s.draining.Load()}
	if errors.Is(err, anomaly.CodeDetectorUnavailable) { // the contract has it, this set does not
		return nil
	}
	return err
}

type serverMetadataCall struct {
	nothingCall[*oipv2.ServerMetadataResponse]
}

func (c *serverMetadataCall) run(context.Context, *service, *live) error {
	c.answer = &oipv2.ServerMetadataResponse{Name: serverName, Version: serverVersion}
	return nil
}

type modelMetadataCall struct {
	namesRequest
	plainCall[*oipv2.ModelMetadataResponse]
}

func (c *modelMetadataCall) run(ctx context.Context, _ *service, l *live) error {
	m, err := l.find(ctx, c.model, c.version)
	if err != nil {
		return err
	}
	shape := m.inputShape(-1)
	c.answer = &oipv2.ModelMetadataResponse{
		Name: m.detector.String(), Versions: []string{l.id}, Platform: serverPlatform,
		Inputs: []*oipv2.ModelMetadataResponse_TensorMetadata{{Name: inputName, Datatype: inputType, Shape: shape}},
	}
	for _, o := range m.outputs() {
		c.answer.Outputs = append(c.answer.Outputs, &oipv2.ModelMetadataResponse_TensorMetadata{
			Name: o.name, Datatype: o.datatype, Shape: o.shape(-1, len(m.features)),
		})
	}
	return nil
}

// The one input of every model.
const (
	inputName = "samples"
	inputType = "FP64"
)

// inputShape is the shape of n items: [n, features], or [n, timesteps, features] for a detector with a window (rule O2).
func (m *model) inputShape(n int64) []int64 {
	if m.windowed {
		return []int64{n, int64(m.window), int64(len(m.features))}
	}
	return []int64{n, int64(len(m.features))}
}

// output is one output of a model.
type output struct {
	name, datatype string
	// items is the number of values of an item: 1, or perFeature of them, or perBatch for one value in all.
	items int
	// explains says whether contributions have to be computed for it (rule O3).
	explains bool
	write    func(to []byte, v *anomaly.BatchVerdict) []byte
}

const (
	perFeature = -1
	perBatch   = 0
)

// shape is the shape of n items.
func (o *output) shape(n int64, features int) []int64 {
	switch o.items {
	case perFeature:
		return []int64{n, int64(features)}
	case perBatch:
		return []int64{1}
	}
	return []int64{n}
}

// allOutputs are the outputs in the order of rule O2.
var allOutputs = []output{
	{name: "score", datatype: "FP32", items: 1, write: func(to []byte, v *anomaly.BatchVerdict) []byte { return append32(to, v.Scores) }},
	{name: "is_anomaly", datatype: "BOOL", items: 1, write: func(to []byte, v *anomaly.BatchVerdict) []byte {
		for _, is := range v.IsAnomaly {
			b := byte(0)
			if is {
				b = 1
			}
			to = append(to, b)
		}
		return to
	}},
	{name: "p_value", datatype: "FP64", items: 1, write: func(to []byte, v *anomaly.BatchVerdict) []byte { return append64(to, v.PValues) }},
	{name: "level", datatype: "INT32", items: 1, write: func(to []byte, v *anomaly.BatchVerdict) []byte {
		for _, level := range v.Levels {
			to = binary.LittleEndian.AppendUint32(to, uint32(level))
		}
		return to
	}},
	{name: "threshold", datatype: "FP64", items: perBatch, write: func(to []byte, v *anomaly.BatchVerdict) []byte {
		return binary.LittleEndian.AppendUint64(to, math.Float64bits(v.Threshold))
	}},
	{name: "contributions", datatype: "FP32", items: perFeature, explains: true, write: func(to []byte, v *anomaly.BatchVerdict) []byte {
		return append32(to, v.Contributions)
	}},
	{name: "expected", datatype: "FP32", items: perFeature, explains: true, write: func(to []byte, v *anomaly.BatchVerdict) []byte {
		return append32(to, v.Expected)
	}},
	{name: "depth_sum", datatype: "FP64", items: 1, write: func(to []byte, v *anomaly.BatchVerdict) []byte { return append64(to, v.DepthSums) }},
}

// outputs are those that the model has: the depth sum, the last one, is the forest's alone.
func (m *model) outputs() []output {
	if m.detector == anomaly.IsolationForest {
		return allOutputs
	}
	return allOutputs[:len(allOutputs)-1]
}

func append32(to []byte, list []float32) []byte {
	to = slices.Grow(to, 4*len(list))
	for _, x := range list {
		to = binary.LittleEndian.AppendUint32(to, math.Float32bits(x))
	}
	return to
}

func append64(to []byte, list []float64) []byte {
	to = slices.Grow(to, 8*len(list))
	for _, x := range list {
		to = binary.LittleEndian.AppendUint64(to, math.Float64bits(x))
	}
	return to
}

var inferCalls = sync.Pool{New: func() any { return new(inferCall) }}

// inferCall is a call of ModelInfer.
type inferCall struct {
	inferRequest
	plainCall[*oipv2.ModelInferResponse]
	verdict anomaly.BatchVerdict
}

func (c *inferCall) release() {
	if cap(c.rawValues)+cap(c.input.values)+cap(c.verdict.Expected) <= largestKept {
		c.answer = nil
		inferCalls.Put(c)
	}
}

func (c *inferCall) run(ctx context.Context, _ *service, l *live) error {
	m, err := l.find(ctx, c.model, c.version)
	if err != nil {
		return err
	}
	outputs, explain, err := c.check(m)
	if err != nil {
		return err
	}
	rows, err := c.rows(m)
	if err != nil {
		return err
	}
	request := anomaly.BatchRequest{Detector: m.detector, Rows: rows, Layout: anomaly.BatchWindows, Explain: explain}
	if err := l.scorer.ScoreBatch(ctx, request, &c.verdict); err != nil {
		return err
	}
	m.batch(&c.verdict)
	m.seen(rows, anomaly.BatchWindows, len(c.verdict.Scores))
	c.answer = &oipv2.ModelInferResponse{ModelName: c.model, ModelVersion: l.id, Id: c.id}
	for _, o := range outputs {
		c.answer.Outputs = append(c.answer.Outputs, &oipv2.ModelInferResponse_InferOutputTensor{
			Name: o.name, Datatype: o.datatype, Shape: o.shape(int64(len(c.verdict.Scores)), len(m.features)),
		})
		c.answer.RawOutputContents = append(c.answer.RawOutputContents, o.write(nil, &c.verdict))
	}
	return nil
}

// check refuses what is wrong with names, types and shapes, in the order of rule O4, and gives the outputs that are asked for.
func (c *inferCall) check(m *model) (outputs []output, explain anomaly.Explain, err error) {
	if c.inputs != 1 || c.input.name != inputName {
		return nil, 0, invalid("inputs", "there are %d inputs, the first is %.100q; send one, named %q", c.inputs, c.input.name, inputName)
	}
	explain = anomaly.ExplainNever
	for i, name := range c.outputs {
		at := slices.IndexFunc(m.outputs(), func(o output) bool { return o.name == name })
		if at < 0 || slices.Contains(c.outputs[:i], name) {
			return nil, 0, invalid("outputs", "%.100q is no output of %s, or is named twice; ask for its metadata", name, m.detector)
		}
		outputs = append(outputs, m.outputs()[at])
	}
	if len(outputs) == 0 {
		outputs = m.outputs()
	}
	for _, o := range outputs {
		if o.explains {
			explain = anomaly.ExplainAlways
		}
	}
	if c.input.datatype != inputType {
		return nil, 0, invalid("inputs[0].datatype", "the type is %.100q; send %s", c.input.datatype, inputType)
	}
	shape := c.input.shape
	if len(shape) == 0 || shape[0] < 0 || !slices.Equal(shape, m.inputShape(shape[0])) {
		return nil, 0, invalid("inputs[0].shape", "the shape is %v; send %v, with the number of items in the first place", shape, m.inputShape(-1))
	}
	return outputs, explain, nil
}

// rows are the values of the input, be they raw or not.
func (c *inferCall) rows(m *model) ([]float64, error) {
	const field = "inputs[0].contents"
	values, items := c.input.values, c.input.shape[0]
	switch {
	case c.input.others || (c.raw > 0 && len(values) > 0) || c.raw > 1:
		return nil, invalid(field, "values come either as one entry of raw_input_contents or as fp64_contents; send one of them")
	case c.raw == 1:
		values = c.rawValues
	}
	item := len(m.features) * m.window
	if int64(len(values)/item) != items || len(values)%item != 0 || c.rawRest != 0 {
		return nil, invalid(field, "%d values and %d bytes are not those of shape %v", len(values), c.rawRest, c.input.shape)
	}
	return values, nil
}
