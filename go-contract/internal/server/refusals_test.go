package server

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	anomaly "dwcp.internal/anomaly"
	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

func row() []float64 { return []float64{105.2, 10.5, 0.01, 1.2, 45.3, 58.7, 0.001} }

func with(j int, x float64) []float64 {
	r := row()
	r[j] = x
	return r
}

func rowsOf(n int) [][]float64 {
	rows := make([][]float64, n)
	for i := range rows {
		rows[i] = row()
	}
	return rows
}

func scoreRequestOf(d anomaly.Detector, rows ...[]float64) *anomalyv1.ScoreRequest {
	r := &anomalyv1.ScoreRequest{Detector: anomalyv1.Detector(d)}
	for _, values := range rows {
		r.Samples = append(r.Samples, &anomalyv1.Sample{Values: values})
	}
	return r
}

func batchRequestOf(d anomaly.Detector, rows ...[]float64) *anomalyv1.ScoreBatchRequest {
	r := &anomalyv1.ScoreBatchRequest{Detector: anomalyv1.Detector(d)}
	for _, values := range rows {
		for _, x := range values {
			r.Rows = binary.LittleEndian.AppendUint64(r.Rows, math.Float64bits(x))
		}
	}
	return r
}

// edit changes a request and gives it back.
func edit[M proto.Message](m M, change func(M)) M {
	change(m)
	return m
}

func score(change func(*anomalyv1.ScoreRequest), d anomaly.Detector, rows ...[]float64) proto.Message {
	return edit(scoreRequestOf(d, rows...), change)
}

func batch(change func(*anomalyv1.ScoreBatchRequest), d anomaly.Detector, rows ...[]float64) proto.Message {
	return edit(batchRequestOf(d, rows...), change)
}

func TestRefusals(t *testing.T) {
	nothing, plain := func(*anomalyv1.ScoreBatchRequest) {}, func(*anomalyv1.ScoreRequest) {}
	explain := func(r *anomalyv1.ScoreRequest) { r.Explain = 9 }
	otherSet := func(r *anomalyv1.ScoreRequest) { r.ModelSetId = strings.Repeat("0", 64) }
	odd := func(r *anomalyv1.ScoreBatchRequest) { r.Rows = append(r.Rows, 1, 2, 3) }
	all := func(r *anomalyv1.ScoreBatchRequest) {
		odd(r)
		r.Explain, r.Layout, r.ModelSetId = 9, 9, "x"
	}
	nan, inf := math.NaN(), math.Inf(-1)
	set := openReference(t)
	connection := connect(t, start(t, set, 8, silent()).Addresses[0])
	seen := map[anomaly.Code]bool{anomaly.CodeDetectorUnavailable: true, anomaly.CodeInternal: true} // tests of their own
	for i, test := range []struct {
		code    anomaly.Code
		field   string
		request proto.Message
	}{
		{anomaly.CodeInvalidRequest, "explain", score(explain, forest, row())},
		{anomaly.CodeInvalidRequest, "explain", score(func(r *anomalyv1.ScoreRequest) { r.Explain = -1 }, forest)},
		{anomaly.CodeInvalidRequest, "explain", batch(func(r *anomalyv1.ScoreBatchRequest) { odd(r); r.Explain, r.Layout = 4, 9 }, lstm)},
		{anomaly.CodeInvalidRequest, "layout", batch(func(r *anomalyv1.ScoreBatchRequest) { odd(r); r.Layout = 3 }, forest, row())},
		{anomaly.CodeInvalidRequest, "layout", batch(func(r *anomalyv1.ScoreBatchRequest) { r.Layout = -1 }, forest)},
		{anomaly.CodeInvalidRequest, "rows", batch(odd, forest)},
		{anomaly.CodeInvalidRequest, "rows", batch(odd, forest, with(2, nan))},
		{anomaly.CodeInvalidRequest, "rows", batch(nothing, forest, row(), []float64{1})},
		{anomaly.CodeUnknownDetector, "detector", score(plain, 0, row())},
		{anomaly.CodeUnknownDetector, "detector", score(func(r *anomalyv1.ScoreRequest) { explain(r); otherSet(r) }, 99)},
		{anomaly.CodeUnknownDetector, "detector", batch(all, -1)},
		{anomaly.CodeNoSamples, "samples", score(plain, lstm)},
		{anomaly.CodeNoSamples, "rows", batch(nothing, lstm)},
		{anomaly.CodeTooManySamples, "samples", score(plain, forest, rowsOf(257)...)},
		{anomaly.CodeTooManySamples, "samples", score(plain, forest, make([][]float64, 5000)...)},
		{anomaly.CodeWrongWidth, "samples[1]", score(plain, forest, row(), row()[:6])},
		{anomaly.CodeWrongWidth, "samples[0]", score(plain, forest, append(row(), 0))},
		{anomaly.CodeWrongWidth, "samples[0]", score(plain, forest, nil)},
		{anomaly.CodeNotFinite, "samples[0].packet_loss", score(plain, forest, with(2, nan), row()[:6])},
		{anomaly.CodeNotFinite, "rows[2].packet_loss", batch(nothing, forest, row(), row(), with(2, nan))},
		{anomaly.CodeNotFinite, "rows[0].error_rate", batch(nothing, lstm, with(6, inf))},
		{anomaly.CodeWindowTooShort, "samples", score(plain, lstm, rowsOf(9)...)},
		{anomaly.CodeWindowTooShort, "rows", batch(nothing, lstm, rowsOf(11)...)},
		{anomaly.CodeWindowTooShort, "rows", batch(func(r *anomalyv1.ScoreBatchRequest) { r.Layout = 2 }, lstm, rowsOf(9)...)},
		{anomaly.CodeBatchTooLarge, "rows", batch(nothing, forest, rowsOf(16385)...)},
		{anomaly.CodeModelSetMismatch, "model_set_id", score(func(r *anomalyv1.ScoreRequest) { explain(r); otherSet(r) }, forest)},
		{anomaly.CodeModelSetMismatch, "model_set_id", batch(all, forest)},
	} {
		t.Run(fmt.Sprintf("%d-%s-%s", i, test.code, test.field), func(t *testing.T) {
			assertRefused(t, ask(t, connection, test.request), test.code, test.field)
		})
		seen[test.code] = true
	}
	for number := range anomalyv1.ErrorCode_name {
		if number > 0 && number < int32(anomaly.CodeManifestMissing) && anomaly.Code(number) != anomaly.CodeUnknownSeries { // TestFleetRefusals
			assert.True(t, seen[anomaly.Code(number)], "no test of %s", anomaly.Code(number))
		}
	}
}

func ask(t *testing.T, c *grpc.ClientConn, request proto.Message) error {
	t.Helper()
	client := anomalyv1.NewScoringServiceClient(c)
	var err error
	switch r := request.(type) {
	case *anomalyv1.ScoreRequest:
		_, err = client.Score(t.Context(), r)
	case *anomalyv1.ScoreBatchRequest:
		_, err = client.ScoreBatch(t.Context(), r)
	}
	require.Error(t, err)
	return err
}

func TestDetectorUnavailable(t *testing.T) {
	connection := connect(t, start(t, forestAlone(t), 8, silent()).Addresses[0])
	assertRefused(t, ask(t, connection, scoreRequestOf(lstm, rowsOf(10)...)), anomaly.CodeDetectorUnavailable, "detector")
	assertRefused(t, ask(t, connection, batchRequestOf(lstm)), anomaly.CodeDetectorUnavailable, "detector")
	for d, want := range map[anomaly.Detector]grpc_health_v1.HealthCheckResponse_ServingStatus{
		forest: grpc_health_v1.HealthCheckResponse_SERVING, lstm: grpc_health_v1.HealthCheckResponse_NOT_SERVING,
	} {
		answer, err := grpc_health_v1.NewHealthClient(connection).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: HealthName(d)})
		require.NoError(t, err)
		assert.Equal(t, want, answer.GetStatus())
	}
}

// raw sends and receives bytes as they are.
type raw struct{}

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}
func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}
func (raw) Name() string { return "proto" }

func TestHostileBytes(t *testing.T) {
	connection := connect(t, start(t, openReference(t), 8, silent()).Addresses[0])
	good, err := proto.Marshal(scoreRequestOf(forest, row()))
	require.NoError(t, err)
	for name, test := range map[string]struct {
		bytes []byte
		code  anomaly.Code
		field string
	}{
		"no message":           {[]byte("\xff\xff\xff"), anomaly.CodeInvalidRequest, ""},
		"cut off":              {good[:len(good)-1], anomaly.CodeInvalidRequest, ""},
		"field 0":              {[]byte("\x00\x01"), anomaly.CodeInvalidRequest, ""},
		"half a value":         {[]byte("\x08\x01\x12\x09\x0a\x07aaaaaaa"), anomaly.CodeInvalidRequest, ""},
		"not UTF-8":            {[]byte("\x08\x01\x22\x01\xff"), anomaly.CodeInvalidRequest, ""},
		"groups in groups":     {bytes.Repeat([]byte{9<<3 | 3}, 1<<20), anomaly.CodeInvalidRequest, ""},
		"length beyond memory": {[]byte("\x12\xff\xff\xff\xff\x0f"), anomaly.CodeInvalidRequest, ""},
		"nothing":              {nil, anomaly.CodeUnknownDetector, "detector"},
		"millions of samples":  {append([]byte{8, 1}, bytes.Repeat([]byte{0x12, 0}, 2<<20)...), anomaly.CodeTooManySamples, "samples"},
		"one very wide sample": {append([]byte("\x08\x01\x12\x85\x80\x80\x04\x0a\x80\x80\x80\x04"), make([]byte, 8<<20)...), anomaly.CodeWrongWidth, "samples[0]"},
	} {
		t.Run(name, func(t *testing.T) {
			var answer []byte
			err := connection.Invoke(t.Context(), scoreMethod, test.bytes, &answer, grpc.ForceCodecV2(raw{}))
			assertRefused(t, err, test.code, test.field)
		})
	}
}

func TestHostileBytesForEveryMethod(t *testing.T) {
	connection := connect(t, start(t, openReference(t), 8, silent()).Addresses[0])
	for _, method := range []string{scoreMethod, batchMethod, setMethod} {
		for _, b := range []string{"\xff\xff\xff", "\x00\x01", "\x4b", "\x0c", "\x12\x7f"} {
			var answer []byte
			err := connection.Invoke(t.Context(), method, []byte(b), &answer, grpc.ForceCodecV2(raw{}))
			assertRefused(t, err, anomaly.CodeInvalidRequest, "")
		}
	}
}

func TestAMessageOverTheLimitIsRefusedAndTheServerLives(t *testing.T) {
	connection := connect(t, start(t, openReference(t), 8, silent()).Addresses[0])
	client := anomalyv1.NewScoringServiceClient(connection)
	_, err := client.ScoreBatch(t.Context(), &anomalyv1.ScoreBatchRequest{Rows: make([]byte, MaxMessageBytes+1)})
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	// Zeros are a small message when they are compressed, and a large one afterwards.
	_, err = client.ScoreBatch(t.Context(), &anomalyv1.ScoreBatchRequest{Rows: make([]byte, MaxMessageBytes+1)}, grpc.UseCompressor(gzip.Name))
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	_, err = client.Score(t.Context(), scoreRequestOf(forest, row()), grpc.UseCompressor(gzip.Name))
	require.NoError(t, err)
}

// bent is a scorer of which Score is replaced.
type bent struct {
	anomaly.Scorer
	score func(ctx context.Context) error
}

func (b bent) Score(ctx context.Context, _ anomaly.Request, _ *anomaly.Verdict) error {
	return b.score(ctx)
}

func TestABugIsInternalAndItsTraceStaysInTheLog(t *testing.T) {
	for name, bug := range map[string]func(context.Context) error{
		"panic": func(context.Context) error { panic("a secret of /etc/secret.conf") },
		"error": func(context.Context) error { return fmt.Errorf("a secret of /etc/secret.conf") },
	} {
		t.Run(name, func(t *testing.T) {
			var text lockedBuffer
			log := slog.New(slog.NewTextHandler(&text, nil))
			connection := connect(t, start(t, bent{openReference(t), bug}, 1, log).Addresses[0])
			for range 3 { // the slot is given back
				err := ask(t, connection, scoreRequestOf(forest, row()))
				assertRefused(t, err, anomaly.CodeInternal, "")
				assert.NotContains(t, err.Error(), "secret")
			}
			assert.Equal(t, 3, strings.Count(text.String(), "a secret of"))
		})
	}
}

type lockedBuffer struct {
	mutex sync.Mutex
	text  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.text.String()
}

// waiting is a scorer that says when it is asked, and answers when told to.
func waiting(t *testing.T) (scorer bent, asked, answer chan struct{}) {
	asked, answer = make(chan struct{}, 100), make(chan struct{})
	return bent{openReference(t), func(ctx context.Context) error {
		asked <- struct{}{}
		select {
		case <-answer:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}}, asked, answer
}

func TestOverTheLimitIsRefusedAtOnce(t *testing.T) {
	scorer, asked, answer := waiting(t)
	connection := connect(t, start(t, scorer, 2, silent()).Addresses[0])
	client := anomalyv1.NewScoringServiceClient(connection)
	results := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := client.Score(t.Context(), scoreRequestOf(forest, row()))
			results <- err
		}()
		<-asked
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err := client.Score(ctx, scoreRequestOf(forest, row()))
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	stream, err := connection.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, batchMethod)
	require.NoError(t, err)
	require.Equal(t, codes.ResourceExhausted, status.Code(stream.RecvMsg(new(anomalyv1.ScoreBatchResponse))), "before the request is sent")
	_, err = grpc_health_v1.NewHealthClient(connection).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	require.NoError(t, err, "health is not scoring")
	close(answer)
	require.NoError(t, <-results)
	require.NoError(t, <-results)
	_, err = client.Score(ctx, scoreRequestOf(forest, row()))
	require.NoError(t, err)
}

// TestTheLimitHoldsUnderLoad: every call is either answered or refused with RESOURCE_EXHAUSTED, and never more run than may.
func TestTheLimitHoldsUnderLoad(t *testing.T) {
	s := start(t, openReference(t), 3, silent())
	var calls sync.WaitGroup
	var answered, refused sync.Map
	for k := range 4 {
		client := anomalyv1.NewScoringServiceClient(connect(t, s.Addresses[k%2]))
		for i := range 8 {
			calls.Go(func() {
				for j := range 25 {
					_, err := client.Score(t.Context(), scoreRequestOf(lstm, rowsOf(10)...))
					switch status.Code(err) {
					case codes.OK:
						answered.Store([3]int{k, i, j}, true)
					case codes.ResourceExhausted:
						refused.Store([3]int{k, i, j}, true)
					default:
						t.Errorf("%v", err)
					}
				}
			})
		}
	}
	calls.Wait()
	count := 0
	answered.Range(func(any, any) bool { count++; return true })
	require.NotZero(t, count)
}

func TestDeadlines(t *testing.T) {
	scorer, asked, _ := waiting(t)
	client := anomalyv1.NewScoringServiceClient(connect(t, start(t, scorer, 1, silent()).Addresses[0]))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := client.Score(ctx, scoreRequestOf(forest, row()))
	require.Equal(t, codes.DeadlineExceeded, status.Code(err))
	<-asked

	// A deadline that passed before scoring began: the scorer is not asked.
	<-ctx.Done() // the server may have been quicker
	s := newService(scorer, Settings{Limits: DefaultLimits()}, silent())
	m := methodAt[scoreMethod]
	_, err = s.serve(ctx, &m, s.metrics.methods["Score"], func(any) error { return nil })
	require.Equal(t, codes.DeadlineExceeded, status.Code(err))
	require.Empty(t, asked)
	require.Zero(t, s.inFlight.Load())
}
