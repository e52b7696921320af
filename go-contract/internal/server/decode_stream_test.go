package server

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
	oipv2 "dwcp.internal/anomaly/gen/dwcp/oip/v2"
)

// FuzzDecodeStream compares the decoder of stream requests with the generated code, on the memory of earlier inputs.
func FuzzDecodeStream(f *testing.F) {
	for _, m := range []*anomalyv1.ScoreStreamRequest{
		{Settings: settingsOf(forest, lstm), Samples: []*anomalyv1.StreamSample{sampleOf("a", row()), {Restart: true}, sampleOf("ü", nil)}},
		{Settings: &anomalyv1.StreamSettings{Explain: 3, ModelSetId: "x"}},
		{Samples: make([]*anomalyv1.StreamSample, 300)},
	} {
		for i, sample := range m.GetSamples() {
			if sample == nil {
				m.Samples[i] = &anomalyv1.StreamSample{}
			}
		}
		b, err := proto.Marshal(m)
		require.NoError(f, err)
		f.Add(b)
	}
	for _, b := range []string{
		"", "\x0a\x00", "\x0a\x02\x08\x01\x0a\x02\x08\x02", "\x0a\x03\x0a\x01\x05", "\x0a\x02\x0a\x05", "\x12\x09\x11aaaaaaaa", "\x12\x02\x18\x02",
		"\x12\x03\x0a\x01\xff", "\x12\x06\x0a\x01a\x0a\x01b", "\x12\x03\x12\x01a", "\x08\x01\x10\x01", "\x12\x04\x23\x18\x01\x24", "\x0a\x03\x1a\x01\xff",
	} {
		f.Add([]byte(b))
	}
	var got streamRequest
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 4096 {
			t.Skip("enough for groups too deep")
		}
		var want anomalyv1.ScoreStreamRequest
		wantErr, err := proto.Unmarshal(b, &want), got.decode(b)
		if !sameRefusal(t, b, wantErr, err) {
			return
		}
		require.Equal(t, want.Settings != nil, got.hasSettings)
		var detectors []int32
		for _, d := range got.settings.detectors {
			detectors = append(detectors, int32(d))
		}
		var wanted []int32
		for _, d := range want.GetSettings().GetDetectors() {
			wanted = append(wanted, int32(d))
		}
		require.Equal(t, wanted[:min(len(wanted), maxDetectors)], detectors)
		require.Equal(t, []any{int32(want.GetSettings().GetExplain()), want.GetSettings().GetModelSetId()},
			[]any{int32(got.settings.explain), got.settings.modelSetID})
		require.Len(t, got.samples, len(want.GetSamples()))
		name, value := 0, 0
		for i, sample := range got.samples {
			w := want.GetSamples()[i]
			require.Equal(t, w.GetSeries(), string(got.names[name:sample.nameEnd]))
			require.Equal(t, bits(w.GetValues()), bits(got.values[value:sample.valuesEnd]))
			require.Equal(t, w.GetRestart(), sample.restart)
			name, value = sample.nameEnd, sample.valuesEnd
		}
	})
}

// FuzzDecodeInference compares the decoders of the Open Inference Protocol with the generated code.
func FuzzDecodeInference(f *testing.F) {
	tensor := &oipv2.ModelInferRequest_InferInputTensor{
		Name: "samples", Datatype: "FP64", Shape: []int64{-1, 7},
		Parameters: map[string]*oipv2.InferParameter{"k": {ParameterChoice: &oipv2.InferParameter_StringParam{StringParam: "v"}}},
		Contents:   &oipv2.InferTensorContents{Fp64Contents: row(), BoolContents: []bool{true}, BytesContents: [][]byte{{1}}},
	}
	for _, m := range []*oipv2.ModelInferRequest{
		inferRequestOf(forest, 1, row()),
		{ModelName: "m", ModelVersion: "v", Id: "ü", Inputs: []*oipv2.ModelInferRequest_InferInputTensor{tensor, tensor}, Parameters: tensor.Parameters},
		{Outputs: []*oipv2.ModelInferRequest_InferRequestedOutputTensor{{Name: "score", Parameters: tensor.Parameters}, {}}},
		{RawInputContents: [][]byte{{1, 2, 3, 4, 5, 6, 7, 8, 9}, {}}},
	} {
		b, err := proto.Marshal(m)
		require.NoError(f, err)
		f.Add(b)
	}
	for _, b := range []string{
		"", "\x0a\x01\xff", "\x22\x03\x0a\x01\xff", "\x22\x05\x12\x03\x1a\x01\xff", "\x22\x02\x12\x00", "\x2a\x05\x2a\x03\x0a\x01\xff", "\x2a\x04\x2a\x02\x3a\x05",
		"\x2a\x05\x2a\x03\x32\x01a", "\x2a\x02\x18\x05", "\x2a\x04\x22\x02\x12\x01", "\x32\x03\x0a\x01\xff", "\x2a\x0b\x2a\x09\x39aaaaaaaa", "\x2a\x07\x2a\x05\x35aaaa",
	} {
		f.Add([]byte(b))
	}
	var got inferRequest
	var names namesRequest
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 4096 {
			t.Skip("enough for groups too deep")
		}
		var model oipv2.ModelMetadataRequest
		wantErr, err := proto.Unmarshal(b, &model), names.decode(b)
		if sameRefusal(t, b, wantErr, err) {
			require.Equal(t, []string{model.GetName(), model.GetVersion()}, []string{names.model, names.version})
		}
		var want oipv2.ModelInferRequest
		wantErr, err = proto.Unmarshal(b, &want), got.decode(b)
		if !sameRefusal(t, b, wantErr, err) {
			return
		}
		require.Equal(t, []any{want.GetModelName(), want.GetModelVersion(), want.GetId(), len(want.GetInputs()), len(want.GetRawInputContents())},
			[]any{got.model, got.version, got.id, got.inputs, got.raw})
		require.Len(t, got.outputs, min(len(want.GetOutputs()), maxListed+1))
		for i, name := range got.outputs {
			require.Equal(t, want.GetOutputs()[i].GetName(), name)
		}
		if got.raw > 0 {
			require.Equal(t, len(want.GetRawInputContents()[0]), 8*len(got.rawValues)+got.rawRest)
		}
		if got.inputs > 0 {
			in := want.GetInputs()[0]
			require.Equal(t, []string{in.GetName(), in.GetDatatype()}, []string{got.input.name, got.input.datatype})
			require.Equal(t, slices.Concat([]int64{}, in.GetShape()[:min(len(in.GetShape()), maxListed+1)]), slices.Concat([]int64{}, got.input.shape))
			c := in.GetContents()
			require.Equal(t, bits(c.GetFp64Contents()), bits(got.input.values))
			others := len(c.GetBoolContents()) + len(c.GetIntContents()) + len(c.GetInt64Contents()) + len(c.GetUintContents()) +
				len(c.GetUint64Contents()) + len(c.GetFp32Contents()) + len(c.GetBytesContents())
			require.Equal(t, others > 0, got.input.others)
		}
	})
}

// TestDecodingAStreamAllocatesNothing once the memory is there.
func TestDecodingAStreamAllocatesNothing(t *testing.T) {
	m := &anomalyv1.ScoreStreamRequest{}
	for range 100 {
		m.Samples = append(m.Samples, sampleOf("a series", with(1, math.NaN())))
	}
	b, err := proto.Marshal(m)
	require.NoError(t, err)
	var r streamRequest
	require.NoError(t, r.decode(b))
	assert.Zero(t, testing.AllocsPerRun(100, func() { _ = r.decode(b) }))
}
