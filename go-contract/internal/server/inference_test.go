package server

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	anomaly "dwcp.internal/anomaly"
	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
	oipv2 "dwcp.internal/anomaly/gen/dwcp/oip/v2"
)

// inferRequestOf asks for items in raw bytes.
func inferRequestOf(d anomaly.Detector, items int, rows ...[]float64) *oipv2.ModelInferRequest {
	shape := []int64{int64(items), 7}
	if d == lstm {
		shape = []int64{int64(items), 10, 7}
	}
	r := &oipv2.ModelInferRequest{
		ModelName: d.String(), Id: "an id", RawInputContents: [][]byte{batchRequestOf(d, rows...).GetRows()},
		Inputs: []*oipv2.ModelInferRequest_InferInputTensor{{Name: "samples", Datatype: "FP64", Shape: shape}},
	}
	return r
}

// typed moves the values from raw bytes to fp64_contents.
func typed(r *oipv2.ModelInferRequest) {
	contents := &oipv2.InferTensorContents{}
	for b := r.GetRawInputContents()[0]; len(b) > 0; b = b[8:] {
		contents.Fp64Contents = append(contents.Fp64Contents, math.Float64frombits(binary.LittleEndian.Uint64(b)))
	}
	r.Inputs[0].Contents, r.RawInputContents = contents, nil
}

func TestInferenceProtocolSaysWhatThereIs(t *testing.T) {
	set := forestAlone(t)
	s := start(t, set, 8, silent())
	client := oipv2.NewGRPCInferenceServiceClient(connect(t, s.Addresses[0]))
	live, err := client.ServerLive(t.Context(), &oipv2.ServerLiveRequest{})
	require.NoError(t, err)
	assert.True(t, live.GetLive())
	ready, err := client.ServerReady(t.Context(), &oipv2.ServerReadyRequest{})
	require.NoError(t, err)
	assert.True(t, ready.GetReady())
	about, err := client.ServerMetadata(t.Context(), &oipv2.ServerMetadataRequest{})
	require.NoError(t, err)
	assert.Equal(t, []string{"dwcp-sidecar", "1"}, []string{about.GetName(), about.GetVersion()})
	for _, test := range []struct {
		name, version string
		ready         bool
		code          codes.Code
	}{
		{"isolation_forest", "", true, codes.OK}, {"isolation_forest", set.ID(), true, codes.OK}, {"lstm_autoencoder", "", false, codes.OK},
		{"isolation_forest", "1", false, codes.NotFound}, {"other", "", false, codes.NotFound}, {"", "", false, codes.NotFound},
	} {
		answer, err := client.ModelReady(t.Context(), &oipv2.ModelReadyRequest{Name: test.name, Version: test.version})
		assert.Equal(t, test.code, status.Code(err), test)
		assert.Equal(t, test.ready, answer.GetReady(), test)
	}
	model, err := client.ModelMetadata(t.Context(), &oipv2.ModelMetadataRequest{Name: "isolation_forest"})
	require.NoError(t, err)
	assert.Equal(t, []string{set.ID()}, model.GetVersions())
	assert.Equal(t, []int64{-1, 7}, model.GetInputs()[0].GetShape())
	var names []string
	for _, o := range model.GetOutputs() {
		names = append(names, o.GetName()+" "+o.GetDatatype())
	}
	assert.Equal(t, []string{
		"score FP32", "is_anomaly BOOL", "p_value FP64", "level INT32", "threshold FP64", "contributions FP32", "expected FP32", "depth_sum FP64",
	}, names)
	_, err = client.ModelMetadata(t.Context(), &oipv2.ModelMetadataRequest{Name: "lstm_autoencoder"})
	assertRefused(t, err, anomaly.CodeDetectorUnavailable, "model_name")

	s.service.draining.Store(true)
	ready, err = client.ServerReady(t.Context(), &oipv2.ServerReadyRequest{})
	require.NoError(t, err)
	assert.False(t, ready.GetReady(), "it stops")
}

// TestInferenceGivesTheBitsOfScoreBatch is O2 and O3, for raw and typed values.
func TestInferenceGivesTheBitsOfScoreBatch(t *testing.T) {
	set := openReference(t)
	connection := connect(t, start(t, set, 8, silent()).Addresses[0])
	client, own := oipv2.NewGRPCInferenceServiceClient(connection), anomalyv1.NewScoringServiceClient(connection)
	for _, d := range set.Detectors() {
		flat, count := windows(t, set, d)
		var rows [][]float64
		for ; len(flat) > 0; flat = flat[7:] {
			rows = append(rows, flat[:7])
		}
		batch := batchRequestOf(d, rows...)
		batch.Explain = anomalyv1.Explain_EXPLAIN_ALWAYS
		want, err := own.ScoreBatch(t.Context(), batch)
		require.NoError(t, err)
		for name, change := range map[string]func(*oipv2.ModelInferRequest){"raw": func(*oipv2.ModelInferRequest) {}, "typed": typed} {
			answer, err := client.ModelInfer(t.Context(), edit(inferRequestOf(d, count, rows...), change))
			require.NoError(t, err, name)
			assert.Equal(t, []string{d.String(), set.ID(), "an id"}, []string{answer.GetModelName(), answer.GetModelVersion(), answer.GetId()})
			got := map[string][]byte{}
			for i, o := range answer.GetOutputs() {
				got[o.GetName()] = answer.GetRawOutputContents()[i]
			}
			assert.Equal(t, append32(nil, want.GetScores()), got["score"])
			assert.Equal(t, append64(nil, want.GetPValues()), got["p_value"])
			assert.Equal(t, append64(nil, []float64{want.GetThreshold()}), got["threshold"])
			assert.Equal(t, append32(nil, want.GetContributions()), got["contributions"])
			assert.Equal(t, append32(nil, want.GetExpected()), got["expected"])
			for i, is := range want.GetIsAnomaly() {
				require.Equal(t, is, got["is_anomaly"][i] == 1)
				require.EqualValues(t, want.GetLevels()[i], binary.LittleEndian.Uint32(got["level"][4*i:]))
			}
			if d == forest {
				require.Len(t, got, 8)
				assert.Equal(t, append64(nil, want.GetDepthSums()), got["depth_sum"])
			} else {
				require.Len(t, got, 7)
			}
		}
		one := inferRequestOf(d, count, rows...)
		one.ModelVersion, one.Outputs = set.ID(), []*oipv2.ModelInferRequest_InferRequestedOutputTensor{{Name: "threshold"}, {Name: "score"}}
		answer, err := client.ModelInfer(t.Context(), one)
		require.NoError(t, err)
		require.Len(t, answer.GetOutputs(), 2)
		assert.Equal(t, []int64{1}, answer.GetOutputs()[0].GetShape())
		assert.Equal(t, []int64{int64(count)}, answer.GetOutputs()[1].GetShape())
		assert.Equal(t, append32(nil, want.GetScores()), answer.GetRawOutputContents()[1])
	}
}

// TestInferenceRefusals is O1 and O4, each fault together with those that come later in the order.
func TestInferenceRefusals(t *testing.T) {
	client := oipv2.NewGRPCInferenceServiceClient(connect(t, start(t, openReference(t), 8, silent()).Addresses[0]))
	type request = oipv2.ModelInferRequest
	contents := func(r *request) { r.RawInputContents[0] = r.RawInputContents[0][1:] }
	shape := func(r *request) { contents(r); r.Inputs[0].Shape = []int64{1, 6} }
	datatype := func(r *request) { shape(r); r.Inputs[0].Datatype = "FP32" }
	outputs := func(names ...string) func(r *request) {
		return func(r *request) {
			datatype(r)
			for _, name := range names {
				r.Outputs = append(r.Outputs, &oipv2.ModelInferRequest_InferRequestedOutputTensor{Name: name})
			}
		}
	}
	input := func(r *request) { outputs("x")(r); r.Inputs[0].Name = "x" }
	version := func(r *request) { input(r); r.ModelVersion = "1" }
	for i, test := range []struct {
		d      anomaly.Detector
		change func(*request)
		status codes.Code
		code   anomaly.Code
		field  string
	}{
		{forest, func(r *request) { version(r); r.ModelName = "x" }, codes.NotFound, anomaly.CodeUnknownDetector, "model_name"},
		{forest, version, codes.NotFound, anomaly.CodeModelSetMismatch, "model_version"},
		{forest, input, codes.InvalidArgument, anomaly.CodeInvalidRequest, "inputs"},
		{forest, func(r *request) { r.Inputs = nil }, codes.InvalidArgument, anomaly.CodeInvalidRequest, "inputs"},
		{forest, func(r *request) { r.Inputs = append(r.Inputs, r.Inputs[0]) }, codes.InvalidArgument, anomaly.CodeInvalidRequest, "inputs"},
		{forest, outputs("score", "x"), codes.InvalidArgument, anomaly.CodeInvalidRequest, "outputs"},
		{forest, outputs("score", "score"), codes.InvalidArgument, anomaly.CodeInvalidRequest, "outputs"},
		{lstm, outputs("depth_sum"), codes.InvalidArgument, anomaly.CodeInvalidRequest, "outputs"},
		{forest, datatype, codes.InvalidArgument, anomaly.CodeInvalidRequest, "inputs[0].datatype"},
		{forest, shape, codes.InvalidArgument, anomaly.CodeInvalidRequest, "inputs[0].shape"},
		{lstm, func(r *request) { r.Inputs[0].Shape = []int64{10, 7} }, codes.InvalidArgument, anomaly.CodeInvalidRequest, "inputs[0].shape"},
		{forest, func(r *request) { r.Inputs[0].Shape[0] = -1 }, codes.InvalidArgument, anomaly.CodeInvalidRequest, "inputs[0].shape"},
		{forest, contents, codes.InvalidArgument, anomaly.CodeInvalidRequest, "inputs[0].contents"},
		{forest, func(r *request) { r.Inputs[0].Shape[0] = 2 }, codes.InvalidArgument, anomaly.CodeInvalidRequest, "inputs[0].contents"},
		{forest, func(r *request) { r.Inputs[0].Shape[0] = math.MaxInt64 / 7 }, codes.InvalidArgument, anomaly.CodeInvalidRequest, "inputs[0].contents"},
		{forest, func(r *request) { r.RawInputContents = nil }, codes.InvalidArgument, anomaly.CodeInvalidRequest, "inputs[0].contents"},
		{forest, func(r *request) { r.RawInputContents = append(r.RawInputContents, nil) }, codes.InvalidArgument, anomaly.CodeInvalidRequest, "inputs[0].contents"},
		{forest, func(r *request) { r.Inputs[0].Contents = &oipv2.InferTensorContents{Fp64Contents: row()} }, codes.InvalidArgument, anomaly.CodeInvalidRequest, "inputs[0].contents"},
		{forest, func(r *request) { r.Inputs[0].Contents = &oipv2.InferTensorContents{Fp32Contents: []float32{1}} }, codes.InvalidArgument, anomaly.CodeInvalidRequest, "inputs[0].contents"},
		{forest, func(r *request) { r.Inputs[0].Shape[0], r.RawInputContents[0] = 0, nil }, codes.InvalidArgument, anomaly.CodeNoSamples, "rows"},
		{forest, func(r *request) { *r = *inferRequestOf(forest, 2, row(), with(2, math.NaN())) }, codes.InvalidArgument, anomaly.CodeNotFinite, "rows[1].packet_loss"},
		{forest, func(r *request) { *r = *inferRequestOf(forest, 16385, rowsOf(16385)...) }, codes.InvalidArgument, anomaly.CodeBatchTooLarge, "rows"},
	} {
		rows := map[anomaly.Detector]int{forest: 1, lstm: 10}[test.d]
		r := inferRequestOf(test.d, 1, rowsOf(rows)...)
		test.change(r)
		_, err := client.ModelInfer(t.Context(), r)
		require.Equal(t, test.status, status.Code(err), "%d: %v", i, err)
		assertReason(t, err, test.code, test.field)
	}
}
