package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	anomaly "dwcp.internal/anomaly"
	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
	oipv2 "dwcp.internal/anomaly/gen/dwcp/oip/v2"
)

const models = "../../../models/reference/v1"

// scorer answers with the reference set, after a delay that the test knows.
type scorer struct {
	anomalyv1.UnimplementedScoringServiceServer
	oipv2.UnimplementedGRPCInferenceServiceServer
	set   *anomaly.ModelSet
	delay time.Duration
	// every n-th unary call is refused.
	refuse int64
	// short leaves the last result of a stream's answer out.
	short bool
	calls atomic.Int64
}

func (s *scorer) score(rows [][]float64) (float32, error) {
	time.Sleep(s.delay)
	if n := s.calls.Add(1); s.refuse > 0 && n%s.refuse == 0 {
		return 0, status.Error(codes.ResourceExhausted, "too many")
	}
	var v anomaly.Verdict
	err := s.set.Score(context.Background(), anomaly.Request{Detector: anomaly.IsolationForest, Samples: rows}, &v)
	if err != nil {
		return 0, status.Error(codes.InvalidArgument, err.Error())
	}
	return v.Score, nil
}

func (s *scorer) Score(_ context.Context, r *anomalyv1.ScoreRequest) (*anomalyv1.ScoreResponse, error) {
	var rows [][]float64
	for _, sample := range r.Samples {
		rows = append(rows, sample.Values)
	}
	score, err := s.score(rows)
	return &anomalyv1.ScoreResponse{Verdict: &anomalyv1.Verdict{Score: score}}, err
}

func (s *scorer) ScoreBatch(_ context.Context, r *anomalyv1.ScoreBatchRequest) (*anomalyv1.ScoreBatchResponse, error) {
	out := &anomalyv1.ScoreBatchResponse{}
	for data := r.Rows; len(data) > 0; data = data[56:] {
		score, err := s.score([][]float64{floats(data[:56])})
		if err != nil {
			return nil, err
		}
		out.Scores = append(out.Scores, score)
	}
	return out, nil
}

func (s *scorer) ScoreStream(stream anomalyv1.ScoringService_ScoreStreamServer) error {
	for {
		r, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		out := &anomalyv1.ScoreStreamResponse{}
		for _, sample := range r.Samples {
			score, err := s.score([][]float64{sample.Values})
			if err != nil {
				return err
			}
			verdict := &anomalyv1.StreamVerdict{Outcome: &anomalyv1.StreamVerdict_Verdict{Verdict: &anomalyv1.Verdict{Score: score}}}
			out.Results = append(out.Results, &anomalyv1.StreamResult{Verdicts: []*anomalyv1.StreamVerdict{verdict}})
		}
		if s.short && len(out.Results) > 0 && s.calls.Load() > 20 {
			out.Results = out.Results[1:]
		}
		if err := stream.Send(out); err != nil {
			return err
		}
	}
}

func (s *scorer) ModelInfer(_ context.Context, r *oipv2.ModelInferRequest) (*oipv2.ModelInferResponse, error) {
	if r.ModelName != "forest" || r.Inputs[0].Name != "samples" || r.Inputs[0].Datatype != "FP64" || r.Inputs[0].Shape[1] != 7 {
		return nil, status.Errorf(codes.InvalidArgument, "not understood: %v", r)
	}
	score, err := s.score([][]float64{floats(r.RawInputContents[0][:56])})
	return &oipv2.ModelInferResponse{
		Outputs:           []*oipv2.ModelInferResponse_InferOutputTensor{{Name: "is_anomaly", Datatype: "BOOL"}, {Name: "score", Datatype: "FP32"}},
		RawOutputContents: [][]byte{{0}, binary.LittleEndian.AppendUint32(nil, math.Float32bits(score))},
	}, err
}

func floats(data []byte) (row []float64) {
	for ; len(data) > 0; data = data[8:] {
		row = append(row, math.Float64frombits(binary.LittleEndian.Uint64(data)))
	}
	return row
}

// serve starts a server on the loopback interface.
func serve(t *testing.T, s *scorer) (address string) {
	set, err := anomaly.OpenModelSet(models)
	require.NoError(t, err)
	t.Cleanup(func() { set.Close() })
	s.set = set
	server := grpc.NewServer()
	anomalyv1.RegisterScoringServiceServer(server, s)
	oipv2.RegisterGRPCInferenceServiceServer(server, s)
	return listen(t, server)
}

func listen(t *testing.T, server *grpc.Server) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	return listener.Addr().String()
}

func run(args ...string) (code int, out result, messages string) {
	var o, m bytes.Buffer
	code = command(append(args, "--warm-up", "50ms", "--duration", "200ms"), &o, &m)
	if code == 0 {
		if err := json.Unmarshal(o.Bytes(), &out); err != nil {
			panic(err)
		}
	}
	return code, out, m.String()
}

// wantScore is the score of the typical row.
func wantScore(t *testing.T) float32 {
	set, err := anomaly.OpenModelSet(models)
	require.NoError(t, err)
	defer set.Close()
	var v anomaly.Verdict
	require.NoError(t, set.Score(t.Context(), anomaly.Request{Detector: anomaly.IsolationForest, Samples: [][]float64{typicalRow}}, &v))
	return v.Score
}

func TestEveryCallIsCountedAndTimed(t *testing.T) {
	const delay = 5 * time.Millisecond
	address := serve(t, &scorer{delay: delay})
	score := wantScore(t)
	for name, test := range map[string]struct {
		args    []string
		rows    float64 // in a request
		callers float64 // requests on their way at a time
	}{
		"score":  {[]string{"--call", "score", "--concurrency", "8", "--connections", "3"}, 1, 8},
		"batch":  {[]string{"--call", "batch", "--rows", "2", "--concurrency", "2"}, 2, 2 / 2.},
		"stream": {[]string{"--call", "stream", "--rows", "2", "--streams", "4", "--connections", "2", "--outstanding", "16"}, 2, 4 / 2.},
		"infer":  {[]string{"--call", "infer", "--model", "forest", "--concurrency", "2"}, 1, 2},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, messages := run(append(test.args, "--address", address)...)
			require.Zero(t, code, messages)
			assert.Empty(t, out.Errors)
			assert.Equal(t, score, *out.FirstScore)
			assert.InDelta(t, out.RowsPerSecond, out.RequestsPerSecond*test.rows, 1e-6)
			most := test.callers / delay.Seconds()
			assert.LessOrEqual(t, out.RequestsPerSecond, most*1.2, "faster than the server can be")
			assert.Greater(t, out.RequestsPerSecond, most/10)
			assert.GreaterOrEqual(t, out.Latency.P50, delay.Seconds()*1e3)
			assert.LessOrEqual(t, out.Latency.P50, out.Latency.P99)
			assert.LessOrEqual(t, out.Latency.P99, out.Latency.Max)
			assert.Positive(t, out.ClientCPUSeconds)
		})
	}
}

func TestRefusalsAreNotAnswers(t *testing.T) {
	s := &scorer{refuse: 2}
	code, out, messages := run("--address", serve(t, s))
	require.Zero(t, code, messages)
	refused := out.Errors["ResourceExhausted"]
	assert.InDelta(t, float64(out.Requests), float64(refused), 2)
	assert.Len(t, out.Errors, 1)
}

func TestAStreamThatLosesResultsIsAnError(t *testing.T) {
	code, out, _ := run("--address", serve(t, &scorer{short: true}), "--call", "stream", "--rows", "4", "--outstanding", "4")
	if code == 0 { // some answers came before
		assert.EqualValues(t, 1, out.Errors["DataLoss"])
	}
	assert.True(t, code == 1 || out.Errors["DataLoss"] == 1)
}

func TestRowsFileIsUsedInTurn(t *testing.T) {
	rows := [][]float64{typicalRow, {1, 2, 3, 4, 5, 6, 7}, typicalRow}
	path := filepath.Join(t.TempDir(), "rows")
	require.NoError(t, os.WriteFile(path, float64Bytes(rows), 0o600))
	w, err := newWorkload(settings{call: "batch", rows: 2, rowsFile: path, width: 7, detector: "isolation_forest", explain: "never"})
	require.NoError(t, err)
	require.Len(t, w.requests, maxVariants)
	for i, want := range [][]int{{0, 1}, {2, 0}, {1, 2}} {
		assert.True(t, bytes.Contains(w.requests[i], float64Bytes([][]float64{rows[want[0]], rows[want[1]]})), i)
	}
}

func TestEcho(t *testing.T) {
	address := listen(t, newEchoServer())
	for _, args := range [][]string{
		{"--concurrency", "4"}, {"--call", "batch", "--rows", "256"}, {"--call", "stream", "--streams", "2", "--outstanding", "2"},
	} {
		code, out, messages := run(append(args, "--address", address, "--unchecked")...)
		require.Zero(t, code, messages)
		assert.Empty(t, out.Errors)
		assert.Nil(t, out.FirstScore)
		assert.Positive(t, out.Requests)
	}
}

func TestInProcess(t *testing.T) {
	code, out, messages := run("--in-process", models, "--rows", "64", "--concurrency", "2")
	require.Zero(t, code, messages)
	assert.Equal(t, wantScore(t), *out.FirstScore)
	assert.InDelta(t, out.RequestsPerSecond*64, out.RowsPerSecond, 1e-6)
}

func TestWaitsForAServerThatStartsLater(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := listener.Addr().String()
	listener.Close()
	started := make(chan error, 1)
	server := newEchoServer()
	t.Cleanup(server.Stop)
	go func() {
		time.Sleep(300 * time.Millisecond)
		late, err := net.Listen("tcp", address)
		started <- err
		if err == nil {
			server.Serve(late)
		}
	}()
	var o, m bytes.Buffer
	code := command([]string{"--address", address, "--unchecked", "--duration", "0"}, &o, &m)
	require.NoError(t, <-started)
	require.Zero(t, code, m.String())
	var out result
	require.NoError(t, json.Unmarshal(o.Bytes(), &out))
	assert.InDelta(t, 0.3, out.FirstAnswerSeconds, 0.25)
}

func TestWhatCannotBeMeasured(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "rows")
	require.NoError(t, os.WriteFile(empty, []byte{1, 2, 3}, 0o600))
	address := listen(t, grpc.NewServer()) // answers UNIMPLEMENTED
	for name, test := range map[string]struct {
		args []string
		code int
		says string
	}{
		"no address":       {nil, 2, "--address"},
		"unknown flag":     {[]string{"--x"}, 2, "-x"},
		"no callers":       {[]string{"--address", address, "--concurrency", "0"}, 2, "--concurrency"},
		"too many samples": {[]string{"--address", address, "--outstanding", "100000"}, 2, "--outstanding"},
		"too few samples":  {[]string{"--address", address, "--call", "stream", "--streams", "2"}, 2, "--outstanding"},
		"unknown call":     {[]string{"--address", address, "--call", "x"}, 1, "--call"},
		"unknown explain":  {[]string{"--address", address, "--explain", "x"}, 1, "--explain"},
		"odd rows":         {[]string{"--address", address, "--rows-file", empty}, 1, "3 bytes"},
		"no such service":  {[]string{"--address", address, "--wait", "100ms"}, 1, "Unimplemented"},
		"no server":        {[]string{"--address", "127.0.0.1:1", "--wait", "100ms"}, 1, "refused"},
	} {
		t.Run(name, func(t *testing.T) {
			code, _, messages := run(test.args...)
			assert.Equal(t, test.code, code)
			assert.Contains(t, messages, test.says)
			assert.Equal(t, 1, strings.Count(messages, "\n"), "one line")
		})
	}
}

func TestHelpHasExamples(t *testing.T) {
	var out bytes.Buffer
	assert.Zero(t, command([]string{"--help"}, &out, io.Discard))
	for _, part := range []string{"Examples:", "-address", "-echo", "-in-process"} {
		assert.Contains(t, out.String(), part)
	}
}

func TestQuantiles(t *testing.T) {
	var h histogram
	assert.Zero(t, h.quantile(.5))
	for i := 1; i <= 1000; i++ {
		h.add(time.Duration(i) * time.Millisecond)
	}
	for q, want := range map[float64]float64{.5: 500, .9: 900, .99: 990, 1: 1000} {
		assert.InEpsilon(t, want, h.quantile(q), .005)
	}
	for _, v := range []uint64{0, 1, 127, 128, 255, 256, 257, 511, 512, 1 << 40, math.MaxInt64} {
		assert.InEpsilon(t, float64(v)+1, middle(bucket(v))+1, .005, v)
	}
}
