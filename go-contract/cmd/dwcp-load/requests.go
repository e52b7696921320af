package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	anomaly "dwcp.internal/anomaly"
	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
	oipv2 "dwcp.internal/anomaly/gen/dwcp/oip/v2"
)

// typicalRow is a normal sample of the dwcp schema, version 1 (rule F2).
var typicalRow = []float64{105.2, 10.5, 0.01, 1.2, 45.3, 58.7, 0.001}

// At most so many different requests are prepared, and so many bytes of them.
const (
	maxVariants     = 64
	maxVariantBytes = 8 << 20
)

// workload is what is sent: the same requests, in turn, by every caller.
type workload struct {
	method   string
	requests [][]byte
	// rows in one request.
	rows int
	// score takes the first score out of an answer.
	score func(answer []byte) (float32, error)
	// settings is the first message of a stream.
	settings []byte
}

// inferSettings say what a model of the Open Inference Protocol is called and takes.
type inferSettings struct {
	model, input, datatype, shape, output, ask string
}

// newWorkload prepares all requests.
func newWorkload(s settings) (*workload, error) {
	rows, err := readRows(s.rowsFile, s.width)
	if err != nil {
		return nil, err
	}
	detector, err := anomaly.ParseDetector(s.detector)
	if err != nil && s.call != "infer" {
		return nil, err
	}
	explain, ok := anomalyv1.Explain_value["EXPLAIN_"+strings.ToUpper(s.explain)]
	if !ok {
		return nil, fmt.Errorf("--explain is %q; write alarms, always or never", s.explain)
	}
	names, err := readSeries(s.seriesFile)
	if err != nil {
		return nil, err
	}
	w := &workload{rows: s.rows}
	var build func(pieces [][]float64) (proto.Message, error)
	d, e := anomalyv1.Detector(detector), anomalyv1.Explain(explain)
	switch s.call {
	case "score":
		w.method, w.score = anomalyv1.ScoringService_Score_FullMethodName, firstOfScore
		build = func(piece [][]float64) (proto.Message, error) {
			r := &anomalyv1.ScoreRequest{Detector: d, Explain: e, Series: names[len(w.requests)%len(names)]}
			for _, row := range piece {
				r.Samples = append(r.Samples, &anomalyv1.Sample{Values: row})
			}
			return r, nil
		}
	case "batch":
		w.method, w.score = anomalyv1.ScoringService_ScoreBatch_FullMethodName, firstOfBatch
		build = func(piece [][]float64) (proto.Message, error) {
			return &anomalyv1.ScoreBatchRequest{Detector: d, Explain: e, Rows: float64Bytes(piece)}, nil
		}
	case "stream", sharedStream:
		w.method, w.score = anomalyv1.ScoringService_ScoreStream_FullMethodName, firstOfStream
		w.settings, err = proto.Marshal(&anomalyv1.ScoreStreamRequest{Settings: &anomalyv1.StreamSettings{Detectors: []anomalyv1.Detector{d}, Explain: e}})
		if err != nil {
			return nil, err
		}
		next := 0
		build = func(piece [][]float64) (proto.Message, error) {
			r := &anomalyv1.ScoreStreamRequest{}
			for _, row := range piece {
				r.Samples = append(r.Samples, &anomalyv1.StreamSample{Series: "series-" + strconv.Itoa(next%s.series), Values: row})
				next++
			}
			return r, nil
		}
	case "infer":
		w.method = oipv2.GRPCInferenceService_ModelInfer_FullMethodName
		w.score = func(answer []byte) (float32, error) { return firstOfInfer(answer, s.infer.output) }
		build = s.infer.request
	default:
		return nil, fmt.Errorf("--call is %q; write score, batch, stream, shared-stream or infer", s.call)
	}
	bytes := 0
	for i := 0; i < max(maxVariants, len(names)) && (i == 0 || bytes < maxVariantBytes); i++ {
		piece := make([][]float64, s.rows)
		for j := range piece {
			piece[j] = rows[(i*s.rows+j)%len(rows)]
		}
		request, err := build(piece)
		if err != nil {
			return nil, err
		}
		data, err := proto.Marshal(request)
		if err != nil {
			return nil, err
		}
		w.requests = append(w.requests, data)
		bytes += len(data)
	}
	return w, nil
}

// readSeries reads names of series; without a file there is one, without a name.
func readSeries(path string) ([]string, error) {
	if path == "" {
		return []string{""}, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--series-file: %w", err)
	}
	names := strings.Fields(string(data))
	if len(names) == 0 {
		return nil, fmt.Errorf("--series-file %s names no series", path)
	}
	return names, nil
}

// request is one ModelInfer request with raw contents.
func (s inferSettings) request(piece [][]float64) (proto.Message, error) {
	tensor := &oipv2.ModelInferRequest_InferInputTensor{Name: s.input, Datatype: s.datatype, Shape: []int64{int64(len(piece)), int64(len(piece[0]))}}
	if s.shape != "" {
		tensor.Shape = nil
		for _, text := range strings.Split(s.shape, ",") {
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("--shape is %q; write it as -1,7", s.shape)
			}
			if n == -1 {
				n = int64(len(piece))
			}
			tensor.Shape = append(tensor.Shape, n)
		}
	}
	request := &oipv2.ModelInferRequest{ModelName: s.model, Inputs: []*oipv2.ModelInferRequest_InferInputTensor{tensor}}
	switch s.datatype {
	case "FP64":
		request.RawInputContents = [][]byte{float64Bytes(piece)}
	case "FP32":
		request.RawInputContents = [][]byte{float32Bytes(piece)}
	default:
		return nil, fmt.Errorf("--datatype is %q; write FP64 or FP32", s.datatype)
	}
	for _, name := range strings.FieldsFunc(s.ask, func(r rune) bool { return r == ',' }) {
		request.Outputs = append(request.Outputs, &oipv2.ModelInferRequest_InferRequestedOutputTensor{Name: name})
	}
	return request, nil
}

// readRows reads rows of little-endian float64; without a file it is the typical row.
func readRows(path string, width int) ([][]float64, error) {
	if path == "" {
		if width != len(typicalRow) {
			return nil, fmt.Errorf("--width is %d; without --rows-file it is %d", width, len(typicalRow))
		}
		return [][]float64{typicalRow}, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(data) == 0 || len(data)%(8*width) != 0 {
		return nil, fmt.Errorf("%s has %d bytes, which are no rows of %d float64 values", path, len(data), width)
	}
	rows := make([][]float64, len(data)/(8*width))
	for i := range rows {
		rows[i] = make([]float64, width)
		for j := range rows[i] {
			rows[i][j] = math.Float64frombits(binary.LittleEndian.Uint64(data[8*(i*width+j):]))
		}
	}
	return rows, nil
}

func float64Bytes(rows [][]float64) (data []byte) {
	for _, row := range rows {
		for _, value := range row {
			data = binary.LittleEndian.AppendUint64(data, math.Float64bits(value))
		}
	}
	return data
}

func float32Bytes(rows [][]float64) (data []byte) {
	for _, row := range rows {
		for _, value := range row {
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(float32(value)))
		}
	}
	return data
}

var errNoScore = errors.New("the answer has no score")

func firstOfScore(answer []byte) (float32, error) {
	var r anomalyv1.ScoreResponse
	if err := proto.Unmarshal(answer, &r); err != nil {
		return 0, err
	}
	if r.Verdict == nil {
		return 0, errNoScore
	}
	return r.Verdict.Score, nil
}

func firstOfBatch(answer []byte) (float32, error) {
	var r anomalyv1.ScoreBatchResponse
	if err := proto.Unmarshal(answer, &r); err != nil {
		return 0, err
	}
	if len(r.Scores) == 0 {
		return 0, errNoScore
	}
	return r.Scores[0], nil
}

func firstOfStream(answer []byte) (float32, error) {
	var r anomalyv1.ScoreStreamResponse
	if err := proto.Unmarshal(answer, &r); err != nil {
		return 0, err
	}
	if len(r.Results) == 0 || len(r.Results[0].Verdicts) == 0 {
		return 0, errNoScore
	}
	verdict := r.Results[0].Verdicts[0]
	if fault := verdict.GetError(); fault != nil {
		return 0, fmt.Errorf("%s: %s", fault.GetCode(), fault.GetMessage())
	}
	return verdict.GetVerdict().GetScore(), nil
}

func firstOfInfer(answer []byte, output string) (float32, error) {
	var r oipv2.ModelInferResponse
	if err := proto.Unmarshal(answer, &r); err != nil {
		return 0, err
	}
	for i, tensor := range r.Outputs {
		switch {
		case tensor.Name != output:
		case tensor.Datatype != "FP32":
			return 0, fmt.Errorf("the output %s is %s, not FP32", output, tensor.Datatype)
		case i < len(r.RawOutputContents) && len(r.RawOutputContents[i]) >= 4:
			return math.Float32frombits(binary.LittleEndian.Uint32(r.RawOutputContents[i])), nil
		case len(tensor.GetContents().GetFp32Contents()) > 0:
			return tensor.Contents.Fp32Contents[0], nil
		}
	}
	return 0, errNoScore
}
