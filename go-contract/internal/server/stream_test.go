package server

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	anomaly "dwcp.internal/anomaly"
	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

type clientStream = grpc.BidiStreamingClient[anomalyv1.ScoreStreamRequest, anomalyv1.ScoreStreamResponse]

func openStream(tb testing.TB, connection *grpc.ClientConn) clientStream {
	tb.Helper()
	stream, err := anomalyv1.NewScoringServiceClient(connection).ScoreStream(tb.Context())
	require.NoError(tb, err)
	return stream
}

func settingsOf(detectors ...anomaly.Detector) *anomalyv1.StreamSettings {
	s := &anomalyv1.StreamSettings{}
	for _, d := range detectors {
		s.Detectors = append(s.Detectors, anomalyv1.Detector(d))
	}
	return s
}

func sampleOf(series string, values []float64) *anomalyv1.StreamSample {
	return &anomalyv1.StreamSample{Series: series, Values: values}
}

// exchange sends a request and gives its answer.
func exchange(tb testing.TB, stream clientStream, request *anomalyv1.ScoreStreamRequest) *anomalyv1.ScoreStreamResponse {
	tb.Helper()
	require.NoError(tb, stream.Send(request))
	answer, err := stream.Recv()
	require.NoError(tb, err)
	require.Len(tb, answer.GetResults(), len(request.GetSamples()), "ST2")
	return answer
}

// refusalOf sends requests and gives the error with which the stream ends.
func refusalOf(tb testing.TB, stream clientStream, requests ...*anomalyv1.ScoreStreamRequest) error {
	tb.Helper()
	for _, r := range requests {
		require.NoError(tb, stream.Send(r))
	}
	for range len(requests) + 1 {
		if _, err := stream.Recv(); err != nil {
			return err
		}
	}
	tb.Fatal("the stream goes on")
	return nil
}

// randomSample is an ordinary one, or now and then one that alarms.
func randomSample(random *rand.Rand) []float64 {
	values := row()
	for j := range values {
		values[j] *= 1 + random.NormFloat64()/10
		if random.IntN(20) == 0 {
			values[j] *= 50
		}
	}
	return values
}

// TestStreamsScoreAsScoreDoes is ST2 to ST5 as a property: whatever series there are, however their samples are spread over requests,
// with restarts and refused samples in between, each verdict is that of Score on the last samples of the series.
func TestStreamsScoreAsScoreDoes(t *testing.T) {
	set := openReference(t)
	connection := connect(t, start(t, set, 8, silent()).Addresses[0])
	unary := anomalyv1.NewScoringServiceClient(connection)
	length := anomaly.WindowLength(set, lstm)
	seen := map[string]int{}
	for seed := range uint64(6) {
		random := rand.New(rand.NewPCG(seed, 1))
		settings := settingsOf([][]anomaly.Detector{{forest, lstm}, {lstm, forest}, {lstm}, {forest}}[seed%4]...)
		settings.Explain = anomalyv1.Explain(seed % 4)
		stream := openStream(t, connection)
		request := &anomalyv1.ScoreStreamRequest{Settings: settings}
		windows := map[string][][]float64{}
		left := 100
		for left > 0 {
			type expected struct {
				window [][]float64
				fault  string
			}
			var wanted []expected
			for range min(left, random.IntN(12)) {
				left--
				series := fmt.Sprint("link ", random.IntN(3))
				sample := sampleOf(series, randomSample(random))
				fault := ""
				switch random.IntN(40) {
				case 0:
					sample.Values[2], fault = math.NaN(), "values.packet_loss"
				case 1:
					sample.Values, fault = sample.Values[:6], "values"
				}
				if random.IntN(40) == 0 {
					sample.Restart = true
					windows[series] = nil
				}
				if fault != "" {
					windows[series] = nil
				} else {
					windows[series] = append(windows[series], sample.GetValues())
				}
				request.Samples = append(request.Samples, sample)
				wanted = append(wanted, expected{windows[series], fault})
			}
			answer := exchange(t, stream, request)
			require.Equal(t, set.ID(), answer.GetModelSetId())
			for i, result := range answer.GetResults() {
				require.Len(t, result.GetVerdicts(), len(settings.GetDetectors()))
				for k, d := range settings.GetDetectors() {
					got := result.GetVerdicts()[k]
					switch {
					case wanted[i].fault != "":
						require.Equal(t, wanted[i].fault, got.GetError().GetField())
						seen["fault"]++
						continue
					case anomaly.Detector(d) == lstm && len(wanted[i].window) < length:
						require.Equal(t, anomalyv1.ErrorCode_ERROR_CODE_WINDOW_TOO_SHORT, got.GetError().GetCode())
						seen["short"]++
						continue
					}
					window := wanted[i].window[max(0, len(wanted[i].window)-length):]
					score := scoreRequestOf(anomaly.Detector(d), window...)
					score.Explain = settings.GetExplain()
					want, err := unary.Score(t.Context(), score)
					require.NoError(t, err)
					require.True(t, proto.Equal(want.GetVerdict(), got.GetVerdict()), "%v\n%v", want, got)
					seen["verdict "+anomaly.Detector(d).String()]++
					if len(got.GetVerdict().GetContributions()) > 0 {
						seen["explained"]++
					}
				}
			}
			request = &anomalyv1.ScoreStreamRequest{}
		}
		require.NoError(t, stream.CloseSend())
		_, err := stream.Recv()
		require.ErrorIs(t, err, io.EOF)
	}
	for _, kind := range []string{"fault", "short", "verdict isolation_forest", "verdict lstm_autoencoder", "explained"} {
		assert.Greater(t, seen[kind], 5, kind)
	}
}

// TestFaultsOfSamples is ST5, field by field.
func TestFaultsOfSamples(t *testing.T) {
	connection := connect(t, start(t, openReference(t), 8, silent()).Addresses[0])
	stream := openStream(t, connection)
	request := &anomalyv1.ScoreStreamRequest{Settings: settingsOf(lstm, forest)}
	for _, values := range [][]float64{nil, row()[:6], append(row(), 1), with(2, math.NaN()), with(6, math.Inf(-1)), row()} {
		request.Samples = append(request.Samples, sampleOf("", values))
	}
	answer := exchange(t, stream, request)
	for i, want := range []struct {
		code  anomaly.Code
		field string
	}{
		{anomaly.CodeWrongWidth, "values"}, {anomaly.CodeWrongWidth, "values"}, {anomaly.CodeWrongWidth, "values"},
		{anomaly.CodeNotFinite, "values.packet_loss"}, {anomaly.CodeNotFinite, "values.error_rate"},
	} {
		for _, verdict := range answer.GetResults()[i].GetVerdicts() {
			assert.Equal(t, want.code, anomaly.Code(verdict.GetError().GetCode()))
			assert.Equal(t, want.field, verdict.GetError().GetField())
			assert.NotEmpty(t, verdict.GetError().GetMessage())
		}
	}
	last := answer.GetResults()[5].GetVerdicts()
	assert.Equal(t, anomaly.CodeWindowTooShort, anomaly.Code(last[0].GetError().GetCode()))
	assert.Equal(t, "values", last[0].GetError().GetField())
	assert.NotZero(t, last[1].GetVerdict().GetScore(), "a window that is not full is no fault of the sample")
	assert.Empty(t, exchange(t, stream, &anomalyv1.ScoreStreamRequest{}).GetResults(), "ST2")
}

// TestStreamsThatAreRefused is ST1, ST7 and ST8.
func TestStreamsThatAreRefused(t *testing.T) {
	set := openReference(t)
	settings := Settings{Listen: "127.0.0.1:0", Limits: limits(8)}
	settings.MaxSeries = 2
	connection := connect(t, startWith(t, set, settings, silent()).Addresses[0])
	first := func(s *anomalyv1.StreamSettings) *anomalyv1.ScoreStreamRequest {
		return &anomalyv1.ScoreStreamRequest{Settings: s}
	}
	samples := func(n int, series string) *anomalyv1.ScoreStreamRequest {
		r := &anomalyv1.ScoreStreamRequest{}
		for range n {
			r.Samples = append(r.Samples, sampleOf(series, row()))
		}
		return r
	}
	change := func(do func(*anomalyv1.StreamSettings), detectors ...anomaly.Detector) *anomalyv1.ScoreStreamRequest {
		s := settingsOf(detectors...)
		do(s)
		return first(s)
	}
	pin := func(s *anomalyv1.StreamSettings) { s.ModelSetId = "x" }
	explain := func(s *anomalyv1.StreamSettings) { s.Explain = 4 }
	all := func(s *anomalyv1.StreamSettings) { pin(s); explain(s) }
	good := first(settingsOf(forest))
	for i, test := range []struct {
		code     anomaly.Code
		field    string
		requests []*anomalyv1.ScoreStreamRequest
	}{
		{anomaly.CodeInvalidRequest, "settings", []*anomalyv1.ScoreStreamRequest{{}}},
		{anomaly.CodeInvalidRequest, "settings", []*anomalyv1.ScoreStreamRequest{samples(1, "")}},
		{anomaly.CodeInvalidRequest, "settings", []*anomalyv1.ScoreStreamRequest{good, good}},
		{anomaly.CodeInvalidRequest, "settings", []*anomalyv1.ScoreStreamRequest{good, first(&anomalyv1.StreamSettings{})}},
		{anomaly.CodeInvalidRequest, "settings.detectors", []*anomalyv1.ScoreStreamRequest{first(&anomalyv1.StreamSettings{})}},
		{anomaly.CodeInvalidRequest, "settings.detectors", []*anomalyv1.ScoreStreamRequest{change(all, forest, lstm, forest)}},
		{anomaly.CodeInvalidRequest, "settings.detectors", []*anomalyv1.ScoreStreamRequest{change(all, 99, 99)}},
		{anomaly.CodeInvalidRequest, "settings.detectors", []*anomalyv1.ScoreStreamRequest{change(all, make([]anomaly.Detector, 5000)...)}},
		{anomaly.CodeUnknownDetector, "settings.detectors[1]", []*anomalyv1.ScoreStreamRequest{change(all, forest, 99, 0)}},
		{anomaly.CodeModelSetMismatch, "settings.model_set_id", []*anomalyv1.ScoreStreamRequest{change(all, lstm, forest)}},
		{anomaly.CodeInvalidRequest, "settings.explain", []*anomalyv1.ScoreStreamRequest{change(explain, forest)}},
		{anomaly.CodeInvalidRequest, "settings.explain", []*anomalyv1.ScoreStreamRequest{edit(samples(5000, ""), func(r *anomalyv1.ScoreStreamRequest) {
			r.Settings = change(explain, forest).GetSettings()
		})}},
		{anomaly.CodeBatchTooLarge, "samples", []*anomalyv1.ScoreStreamRequest{good, samples(4097, strings.Repeat("x", 300))}},
		{anomaly.CodeInvalidRequest, "samples[1].series", []*anomalyv1.ScoreStreamRequest{good, edit(samples(3, ""), func(r *anomalyv1.ScoreStreamRequest) {
			r.Samples[0].Series, r.Samples[1].Series = strings.Repeat("x", 256), strings.Repeat("x", 257)
		})}},
	} {
		t.Run(fmt.Sprintf("%d-%s-%s", i, test.code, test.field), func(t *testing.T) {
			assertRefused(t, refusalOf(t, openStream(t, connection), test.requests...), test.code, test.field)
		})
	}
	t.Run("4096 samples are allowed", func(t *testing.T) {
		stream := openStream(t, connection)
		exchange(t, stream, edit(samples(4096, strings.Repeat("x", 256)), func(r *anomalyv1.ScoreStreamRequest) { r.Settings = settingsOf(forest) }))
	})
	t.Run("series", func(t *testing.T) {
		err := refusalOf(t, openStream(t, connection), good, samples(1, "a"), samples(1, "b"), samples(1, "a"), samples(1, "c"))
		require.Equal(t, codes.ResourceExhausted, status.Code(err))
		assert.Empty(t, status.Convert(err).Details())
	})
	t.Run("no message", func(t *testing.T) {
		for _, b := range []string{"\xff\xff\xff", "\x12\x05\x0a\x03\xff\xff\xff", "\x12\x03\x12\x01a", "\x0a\x02\x0a\x05"} {
			stream, err := connection.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, streamMethod, grpc.ForceCodecV2(raw{}))
			require.NoError(t, err)
			require.NoError(t, stream.SendMsg([]byte(b)))
			var answer []byte
			assertRefused(t, stream.RecvMsg(&answer), anomaly.CodeInvalidRequest, "")
		}
	})
	t.Run("detector without a graph", func(t *testing.T) {
		connection := connect(t, start(t, forestAlone(t), 8, silent()).Addresses[0])
		assertRefused(t, refusalOf(t, openStream(t, connection), change(all, forest, lstm)), anomaly.CodeDetectorUnavailable, "settings.detectors[1]")
	})
}

// TestStreamAnswersAreTheBytesOfTheGeneratedCode, also when they come in several pieces.
func TestStreamAnswersAreTheBytesOfTheGeneratedCode(t *testing.T) {
	connection := connect(t, start(t, openReference(t), 8, silent()).Addresses[0])
	request := &anomalyv1.ScoreStreamRequest{Settings: settingsOf(forest, lstm)}
	request.Settings.Explain = anomalyv1.Explain_EXPLAIN_ALWAYS
	random := rand.New(rand.NewPCG(3, 3))
	for i := range 400 {
		sample := sampleOf(fmt.Sprint("s", i%3), randomSample(random))
		if i%50 == 9 {
			sample.Values[3] = math.NaN()
		}
		request.Samples = append(request.Samples, sample)
	}
	b, err := proto.Marshal(request)
	require.NoError(t, err)
	stream, err := connection.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, streamMethod, grpc.ForceCodecV2(raw{}))
	require.NoError(t, err)
	require.NoError(t, stream.SendMsg(b))
	var got []byte
	require.NoError(t, stream.RecvMsg(&got))
	require.Greater(t, len(got), 2*chunkBytes)
	var answer anomalyv1.ScoreStreamResponse
	require.NoError(t, proto.Unmarshal(got, &answer))
	require.Len(t, answer.GetResults(), 400)
	want, err := proto.MarshalOptions{Deterministic: true}.Marshal(&answer)
	require.NoError(t, err)
	require.Equal(t, want, got)
}

// TestWindows compares the ring with the plain list that it stands for.
func TestWindows(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 5))
	for range 200 {
		room, width := 1+random.IntN(12), 1+random.IntN(4)
		var w window
		var want [][]float64
		for range 100 {
			switch random.IntN(20) {
			case 0:
				w.restart()
				want = nil
			case 1:
				after := room + random.IntN(3)
				w.resize(room, after, width)
				room = after
			default:
				sample := make([]float64, width)
				for j := range sample {
					sample[j] = random.Float64()
				}
				w.push(sample, room)
				want = append(want, sample)
			}
			want = want[max(0, len(want)-room):]
			require.Equal(t, len(want), w.count)
			n := random.IntN(w.count + 1)
			require.Equal(t, append([][]float64{}, want[len(want)-n:]...), append([][]float64{}, w.last(n, room, width, nil)...))
		}
	}
}

func TestOneStreamTooManyIsRefusedAtOnce(t *testing.T) {
	settings := Settings{Listen: "127.0.0.1:0", Limits: limits(8)}
	settings.MaxStreams = 1000
	s := startWith(t, openReference(t), settings, silent())
	connection := connect(t, s.Addresses[0])
	var refusedStreams, open atomic.Int64
	var streams sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for range 4 {
		streams.Go(func() {
			for range 500 {
				stream, err := anomalyv1.NewScoringServiceClient(connection).ScoreStream(ctx)
				if !assert.NoError(t, err) {
					return
				}
				if err = stream.Send(&anomalyv1.ScoreStreamRequest{Settings: settingsOf(forest, lstm), Samples: []*anomalyv1.StreamSample{sampleOf("a", row())}}); err == nil || err == io.EOF {
					_, err = stream.Recv()
				}
				switch status.Code(err) {
				case codes.OK:
					open.Add(1)
				case codes.ResourceExhausted:
					refusedStreams.Add(1)
				default:
					t.Errorf("%v", err)
				}
			}
		})
	}
	streams.Wait()
	assert.EqualValues(t, 1000, open.Load())
	assert.EqualValues(t, 1000, refusedStreams.Load())
	_, err := anomalyv1.NewScoringServiceClient(connection).Score(t.Context(), scoreRequestOf(forest, row()))
	require.NoError(t, err, "streams take nothing from calls")
	cancel()
	require.Eventually(t, func() bool { return s.service.streams.open.Load() == 0 }, 10*time.Second, time.Millisecond)
	assert.Empty(t, s.service.streams.all, "nothing is left of them")
	exchange(t, openStream(t, connection), &anomalyv1.ScoreStreamRequest{Settings: settingsOf(forest)})
}

// TestIdleStreamsEnd is L5: streams without requests, without settings, and with a client that never reads; others go on.
func TestIdleStreamsEnd(t *testing.T) {
	settings := Settings{Listen: "127.0.0.1:0", Limits: limits(8)}
	settings.StreamIdle = time.Second
	s := startWith(t, openReference(t), settings, silent())
	silentOne, busy := openStream(t, connect(t, s.Addresses[0])), openStream(t, connect(t, s.Addresses[0]))
	first := &anomalyv1.ScoreStreamRequest{Settings: settingsOf(forest)}
	exchange(t, busy, first)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	notReading, err := anomalyv1.NewScoringServiceClient(connect(t, s.Addresses[0])).ScoreStream(ctx)
	require.NoError(t, err)
	require.NoError(t, notReading.Send(first))
	big := &anomalyv1.ScoreStreamRequest{}
	for range 4000 {
		big.Samples = append(big.Samples, sampleOf("a", row()))
	}
	var sent atomic.Int64
	done := make(chan struct{})
	go func() { // until flow control holds it up: the status waits behind the answers that nobody reads
		defer close(done)
		for range 100 {
			if notReading.Send(big) != nil {
				return
			}
			sent.Add(1)
		}
	}()
	enough, over := make(chan struct{}), make(chan error, 1)
	go func() { // it goes on as long as something moves
		for {
			select {
			case <-enough:
				over <- nil
				return
			case <-time.After(20 * time.Millisecond):
			}
			err := busy.Send(&anomalyv1.ScoreStreamRequest{Samples: []*anomalyv1.StreamSample{sampleOf("a", row())}})
			if err == nil {
				_, err = busy.Recv()
			}
			if err != nil {
				over <- err
				return
			}
		}
	}()
	_, err = silentOne.Recv()
	require.Equal(t, codes.Canceled, status.Code(err), "%v", err)
	assert.Contains(t, status.Convert(err).Message(), "nothing moved")
	require.Eventually(t, func() bool { return s.service.streams.open.Load() == 1 }, 30*time.Second, time.Millisecond)
	close(enough)
	require.NoError(t, <-over)
	cancel()
	<-done
	require.Less(t, sent.Load(), int64(100), "the server does not read for one that does not")
}

// gated is a scorer that says when it scores, and goes on when told to.
type gated struct {
	anomaly.Scorer
	asked, goOn chan struct{}
}

func (g gated) Score(ctx context.Context, request anomaly.Request, verdict *anomaly.Verdict) error {
	if len(request.Samples) > 0 {
		g.asked <- struct{}{}
		<-g.goOn
	}
	return g.Scorer.Score(ctx, request, verdict)
}

// TestStreamsEndWhenTheServerStops is L7: what is being computed is sent, then all streams end with UNAVAILABLE.
func TestStreamsEndWhenTheServerStops(t *testing.T) {
	scorer := gated{openReference(t), make(chan struct{}), make(chan struct{})}
	s := startWith(t, scorer, Settings{Listen: "127.0.0.1:0", Limits: limits(8)}, silent())
	idle, busy := openStream(t, connect(t, s.Addresses[0])), openStream(t, connect(t, s.Addresses[0]))
	exchange(t, idle, &anomalyv1.ScoreStreamRequest{Settings: settingsOf(forest)})
	request := &anomalyv1.ScoreStreamRequest{Settings: settingsOf(forest), Samples: []*anomalyv1.StreamSample{sampleOf("a", row())}}
	require.NoError(t, busy.Send(request))
	<-scorer.asked
	stopped := make(chan struct{})
	go func() {
		s.Stop(context.Background())
		close(stopped)
	}()
	_, err := idle.Recv()
	require.Equal(t, codes.Unavailable, status.Code(err))
	assert.Contains(t, status.Convert(err).Message(), "stopping")
	select {
	case <-stopped:
		t.Fatal("it did not wait for the answer")
	case <-time.After(50 * time.Millisecond):
	}
	close(scorer.goOn)
	answer, err := busy.Recv()
	require.NoError(t, err)
	assert.NotZero(t, answer.GetResults()[0].GetVerdicts()[0].GetVerdict().GetScore())
	_, err = busy.Recv()
	require.Equal(t, codes.Unavailable, status.Code(err))
	select {
	case <-stopped:
	case <-time.After(10 * time.Second):
		t.Fatal("it does not stop")
	}
}

// TestDeadlinesOfStreams is L6: what is still to be scored when the deadline passes is not.
func TestDeadlinesOfStreams(t *testing.T) {
	connection := connect(t, start(t, openReference(t), 8, silent()).Addresses[0])
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	stream, err := anomalyv1.NewScoringServiceClient(connection).ScoreStream(ctx)
	require.NoError(t, err)
	require.NoError(t, stream.Send(&anomalyv1.ScoreStreamRequest{Settings: settingsOf(forest)}))
	_, err = stream.Recv()
	require.NoError(t, err)
	_, err = stream.Recv()
	require.Equal(t, codes.DeadlineExceeded, status.Code(err))
}
