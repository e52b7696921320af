package anomaly

import (
	"context"
	"fmt"
	"io"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// streamer is a sidecar with streams as ST1 to ST5 say, scoring one series after the other with a model set.
type streamer struct {
	fakeSidecar
	// opening, when set, is asked before the settings are accepted.
	opening func(n int64) error
	// before, when set, is asked before request n of a stream is answered, the one with the settings being 0.
	before func(ctx context.Context, n int, r *anomalyv1.ScoreStreamRequest) error
	opened atomic.Int64
	mu     sync.Mutex
	sizes  []int
}

func (f *streamer) ScoreStream(stream anomalyv1.ScoringService_ScoreStreamServer) error {
	n := f.opened.Add(1)
	var settings *anomalyv1.StreamSettings
	windows := map[string][][]float64{}
	for i := 0; ; i++ {
		request, err := stream.Recv()
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if i == 0 {
			settings = request.GetSettings()
			if len(settings.GetDetectors()) == 0 {
				return ToStatus(refuse(CodeInvalidRequest, "settings.detectors", "none")).Err()
			}
			if f.opening != nil {
				if err := f.opening(n); err != nil {
					return err
				}
			}
		} else {
			f.mu.Lock()
			f.sizes = append(f.sizes, len(request.GetSamples()))
			f.mu.Unlock()
		}
		if id := settings.GetModelSetId(); id != "" && id != f.id {
			return ToStatus(refuse(CodeModelSetMismatch, "model_set_id", "wanted %s", id)).Err()
		}
		if f.before != nil {
			if err := f.before(stream.Context(), i, request); err != nil {
				return err
			}
		}
		reply := &anomalyv1.ScoreStreamResponse{ModelSetId: f.id}
		for _, s := range request.GetSamples() {
			reply.Results = append(reply.Results, f.score(settings, windows, s))
		}
		if err := stream.Send(reply); err != nil {
			return err
		}
	}
}

func (f *streamer) score(settings *anomalyv1.StreamSettings, windows map[string][][]float64, s *anomalyv1.StreamSample) *anomalyv1.StreamResult {
	window := windows[s.GetSeries()]
	if s.GetRestart() {
		window = nil
	}
	window = append(window, s.GetValues())
	window = window[max(0, len(window)-10):]
	result := &anomalyv1.StreamResult{}
	for _, d := range settings.GetDetectors() {
		var v Verdict
		out := &anomalyv1.StreamVerdict{}
		err := f.set.Score(context.Background(), Request{Detector: Detector(d), Samples: window, Explain: Explain(settings.GetExplain())}, &v)
		if err == nil {
			out.Outcome = &anomalyv1.StreamVerdict_Verdict{Verdict: &anomalyv1.Verdict{Score: v.Score, IsAnomaly: v.IsAnomaly, TopFeature: v.TopFeature,
				Contributions: v.Contributions, Expected: v.Expected, Level: anomalyv1.Level(v.Level), PValue: v.PValue}}
		} else {
			e := AsError(err)
			if e.Code == CodeNotFinite {
				window = nil
			}
			out.Outcome = &anomalyv1.StreamVerdict_Error{Error: &anomalyv1.ErrorInfo{Code: anomalyv1.ErrorCode(e.Code), Field: e.Field, Message: e.Message}}
		}
		result.Verdicts = append(result.Verdicts, out)
	}
	windows[s.GetSeries()] = window
	return result
}

func (f *streamer) requests() []int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]int(nil), f.sizes...)
}

func newStreamer(t *testing.T) *streamer {
	set := openReference(t)
	return &streamer{fakeSidecar: fakeSidecar{set: set, id: set.ID()}}
}

func openStream(t *testing.T, f *streamer, settings StreamSettings, opts ...SidecarOption) *Stream {
	t.Helper()
	address, _ := serveUnix(t, f)
	stream, err := dialFake(t, address, opts...).OpenStream(t.Context(), settings)
	require.NoError(t, err)
	t.Cleanup(func() { stream.Close() })
	return stream
}

var (
	bothDetectors = StreamSettings{Detectors: []Detector{IsolationForest, LSTMAutoencoder}, Explain: ExplainAlways}
	forestAlone   = StreamSettings{Detectors: []Detector{IsolationForest}}
)

// series gives sample i of a series; every one is different.
func series(name string, i int) StreamSample {
	x := float64(i)
	return StreamSample{Series: name, Values: []float64{100 + x, 10 + math.Sin(x), .01, 1, 30 + float64(len(name)), 40, .001}}
}

func TestStreamScoresAreThoseOfScore(t *testing.T) {
	f := newStreamer(t)
	stream := openStream(t, f, bothDetectors)
	windows := map[string][][]float64{}
	for i := range 25 {
		var samples []StreamSample
		for _, name := range []string{"a", "bb"} {
			s := series(name, i)
			samples = append(samples, s)
		}
		results, err := stream.Score(t.Context(), samples...)
		require.NoError(t, err)
		require.Len(t, results, 2)
		for j, r := range results {
			assert.Equal(t, samples[j], r.Sample)
			assert.Equal(t, f.id, r.ModelSetID)
			windows[r.Sample.Series] = append(windows[r.Sample.Series], r.Sample.Values)
			require.Len(t, r.Verdicts, 2)
			for k, d := range bothDetectors.Detectors {
				var want Verdict
				err := f.set.Score(t.Context(), Request{Detector: d, Samples: windows[r.Sample.Series], Explain: ExplainAlways}, &want)
				if err != nil {
					require.ErrorIs(t, r.Verdicts[k].Err, CodeWindowTooShort)
					assert.Less(t, i, 9)
					continue
				}
				require.Nil(t, r.Verdicts[k].Err)
				got := r.Verdicts[k].Verdict
				assert.Equal(t, want.Score, got.Score)
				assert.Equal(t, want.Contributions, got.Contributions)
				assert.Equal(t, want.TopFeature, got.TopFeature)
			}
		}
	}
	results, err := stream.Score(t.Context(), StreamSample{Series: "a", Values: []float64{1, 2, math.NaN(), 4, 5, 6, 7}}, series("a", 1))
	require.NoError(t, err, "a refused sample does not end the stream")
	assert.ErrorIs(t, results[0].Verdicts[0].Err, CodeNotFinite)
	assert.Nil(t, results[1].Verdicts[0].Err)
	assert.ErrorIs(t, results[1].Verdicts[1].Err, CodeWindowTooShort)
	results, err = stream.Score(t.Context())
	require.NoError(t, err)
	assert.Empty(t, results)
}

// TestWaitingSamplesTravelTogether: while the sidecar is busy, whatever is sent goes into one request.
func TestWaitingSamplesTravelTogether(t *testing.T) {
	f := newStreamer(t)
	release := make(chan struct{})
	f.before = func(_ context.Context, n int, _ *anomalyv1.ScoreStreamRequest) error {
		if n == 1 {
			<-release
		}
		return nil
	}
	stream := openStream(t, f, forestAlone)
	const count = 3000
	require.NoError(t, stream.Send(t.Context(), series("a", 0)))
	require.Eventually(t, func() bool { return len(f.requests()) == 1 }, 10*time.Second, time.Millisecond)
	reused := series("a", 0)
	for i := 1; i < count; i++ {
		copy(reused.Values, series("a", i).Values) // values are copied: the caller may use its slice again
		require.NoError(t, stream.Send(t.Context(), reused))
	}
	close(release)
	stream.CloseSend()
	for i := range count {
		r, err := stream.Receive(t.Context())
		require.NoError(t, err)
		require.Equal(t, series("a", i), r.Sample)
	}
	_, err := stream.Receive(t.Context())
	require.Equal(t, io.EOF, err)
	_, err = stream.Score(t.Context(), series("a", 0))
	require.Error(t, err)
	assert.LessOrEqual(t, len(f.requests()), 3, "%v", f.requests())
	assert.Empty(t, stream.Unanswered())
}

func TestManySamplesAreSplit(t *testing.T) {
	f := newStreamer(t)
	stream := openStream(t, f, forestAlone)
	samples := make([]StreamSample, 2*MaxStreamSamples+1)
	for i := range samples {
		samples[i] = series(fmt.Sprint(i%7), i)
	}
	results, err := stream.Score(t.Context(), samples...)
	require.NoError(t, err)
	require.Len(t, results, len(samples))
	for i := range samples {
		require.Equal(t, samples[i], results[i].Sample)
	}
	assert.Equal(t, []int{MaxStreamSamples, MaxStreamSamples, 1}, f.requests())
}

// TestManyGoroutinesShareAStream: everyone gets the results of its own samples.
func TestManyGoroutinesShareAStream(t *testing.T) {
	f := newStreamer(t)
	stream := openStream(t, f, bothDetectors)
	var all sync.WaitGroup
	const each = 60
	for g := range 8 {
		name := strings.Repeat("x", g+1)
		all.Go(func() {
			for i := range each {
				results, err := stream.Score(t.Context(), series(name, i), series(name+"+", i))
				if !assert.NoError(t, err) || !assert.Len(t, results, 2) {
					return
				}
				assert.Equal(t, series(name, i), results[0].Sample)
				assert.Equal(t, series(name+"+", i), results[1].Sample)
				assert.Equal(t, i >= 9, results[0].Verdicts[1].Err == nil)
			}
		})
	}
	all.Go(func() {
		for i := range each {
			assert.NoError(t, stream.Send(t.Context(), series("sent", i)))
		}
	})
	all.Go(func() {
		for i := range each {
			r, err := stream.Receive(t.Context())
			assert.NoError(t, err)
			assert.Equal(t, series("sent", i), r.Sample)
		}
	})
	all.Wait()
	total := 0
	for _, n := range f.requests() {
		total += n
	}
	assert.Equal(t, 8*each*2+each, total)
	assert.Less(t, len(f.requests()), 8*each+each, "some waited and went together")
}

// TestABrokenStreamNamesWhatWasNotAnswered, and another one, refilled with the last window, goes on with the same scores.
func TestABrokenStreamNamesWhatWasNotAnswered(t *testing.T) {
	f := newStreamer(t)
	const count, window = 60, 10
	seen := 0
	f.before = func(_ context.Context, _ int, r *anomalyv1.ScoreStreamRequest) error {
		if seen += len(r.GetSamples()); f.opened.Load() == 1 && seen > count/2 {
			return status.Error(codes.Unavailable, "killed")
		}
		return nil
	}
	address, _ := serveUnix(t, f)
	s := dialFake(t, address)
	stream, err := s.OpenStream(t.Context(), bothDetectors)
	require.NoError(t, err)
	var history [][]float64
	var scores []float32
	receive := func(want int) error {
		for range want {
			r, err := stream.Receive(t.Context())
			if err != nil {
				return err
			}
			history = append(history, r.Sample.Values)
			if r.Verdicts[1].Err == nil {
				scores = append(scores, r.Verdicts[1].Verdict.Score)
			}
		}
		return nil
	}
	for i := range count {
		if stream.Send(t.Context(), series("a", i)) != nil {
			break
		}
		if i == 20 {
			require.NoError(t, receive(12))
		}
	}
	err = receive(count)
	require.ErrorIs(t, err, ErrUnavailable)
	_, again := stream.Receive(t.Context())
	require.Equal(t, err, again, "it stays broken")
	require.ErrorIs(t, stream.Send(t.Context(), series("a", 0)), ErrUnavailable)
	_, again = stream.Score(t.Context(), series("a", 0))
	require.ErrorIs(t, again, ErrUnavailable)
	unanswered := stream.Unanswered()
	require.NotEmpty(t, unanswered)
	answered := len(history)
	for i, u := range unanswered {
		require.Equal(t, series("a", answered+i), u)
	}

	second, err := s.OpenStream(t.Context(), bothDetectors)
	require.NoError(t, err)
	defer second.Close()
	refill := history[max(0, answered-(window-1)):]
	for _, values := range refill {
		_, err := second.Score(t.Context(), StreamSample{Series: "a", Values: values})
		require.NoError(t, err)
	}
	for i := answered; i < count; i++ {
		results, err := second.Score(t.Context(), series("a", i))
		require.NoError(t, err)
		if i >= window-1 {
			require.Nil(t, results[0].Verdicts[1].Err)
			scores = append(scores, results[0].Verdicts[1].Verdict.Score)
		}
	}
	require.Len(t, scores, count-window+1)
	for i, got := range scores {
		request := Request{Detector: LSTMAutoencoder}
		for j := range window {
			request.Samples = append(request.Samples, series("a", i+j).Values)
		}
		var want Verdict
		require.NoError(t, f.set.Score(t.Context(), request, &want))
		require.Equal(t, want.Score, got)
	}
}

// TestScoreGivesWhatWasAnswered: of a call in several requests, the first were answered before the stream broke.
func TestScoreGivesWhatWasAnswered(t *testing.T) {
	f := newStreamer(t)
	f.before = func(_ context.Context, n int, _ *anomalyv1.ScoreStreamRequest) error {
		if n == 2 {
			time.Sleep(20 * time.Millisecond) // the first answer goes out before
			return status.Error(codes.Canceled, "idle")
		}
		return nil
	}
	stream := openStream(t, f, forestAlone)
	samples := make([]StreamSample, MaxStreamSamples+1)
	for i := range samples {
		samples[i] = series("a", i)
	}
	results, err := stream.Score(t.Context(), samples...)
	require.ErrorIs(t, err, ErrUnavailable)
	assert.Len(t, results, MaxStreamSamples)
	assert.Empty(t, stream.Unanswered(), "those of Send alone")
}

func TestTheDeadlineOfAStreamCall(t *testing.T) {
	f := newStreamer(t)
	release := make(chan struct{})
	f.before = func(_ context.Context, n int, _ *anomalyv1.ScoreStreamRequest) error {
		if n == 1 {
			<-release
		}
		return nil
	}
	address, _ := serveUnix(t, f)
	s := dialFake(t, address)
	stream, err := s.OpenStream(t.Context(), forestAlone)
	require.NoError(t, err)
	defer stream.Close()
	s.deadline = 50 * time.Millisecond
	started := time.Now()
	results, err := stream.Score(t.Context(), series("a", 0))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.Empty(t, results)
	assert.Less(t, time.Since(started), 2*time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = stream.Receive(ctx)
	require.ErrorIs(t, err, context.Canceled)

	s.deadline = 20 * time.Second
	close(release)
	results, err = stream.Score(t.Context(), series("b", 1)) // the late answer went to nobody
	require.NoError(t, err)
	assert.Equal(t, series("b", 1), results[0].Sample)
}

// TestSendWaitsForRoom: what nobody receives does not fill the memory.
func TestSendWaitsForRoom(t *testing.T) {
	f := newStreamer(t)
	stream := openStream(t, f, forestAlone)
	full := make([]StreamSample, samplesAhead)
	for i := range full {
		full[i] = series("a", i)
	}
	require.NoError(t, stream.Send(t.Context(), full...))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, stream.Send(ctx, series("a", 0)), context.DeadlineExceeded)
	sent := make(chan error)
	go func() { sent <- stream.Send(t.Context(), series("a", -1)) }()
	for range samplesAhead {
		_, err := stream.Receive(t.Context())
		require.NoError(t, err)
	}
	require.NoError(t, <-sent)
	r, err := stream.Receive(t.Context())
	require.NoError(t, err)
	assert.Equal(t, series("a", -1), r.Sample)
}

func TestOpeningAStream(t *testing.T) {
	f := newStreamer(t)
	f.opening = func(n int64) error {
		if n <= 2 {
			return status.Error(codes.ResourceExhausted, "too many streams")
		}
		return nil
	}
	openStream(t, f, forestAlone)
	assert.EqualValues(t, 3, f.opened.Load(), "tried again")

	f = newStreamer(t)
	address, _ := serveUnix(t, f)
	s := dialFake(t, address)
	_, err := s.OpenStream(t.Context(), StreamSettings{})
	require.ErrorIs(t, err, CodeInvalidRequest)
	assert.Equal(t, "settings.detectors", AsError(err).Field)
	_, err = s.OpenStream(t.Context(), StreamSettings{Detectors: forestAlone.Detectors, ModelSetID: "other"})
	require.ErrorIs(t, err, CodeModelSetMismatch)
	assert.EqualValues(t, 2, f.opened.Load(), "a refusal is not tried again")

	f = newStreamer(t)
	f.before = func(ctx context.Context, _ int, _ *anomalyv1.ScoreStreamRequest) error {
		<-ctx.Done()
		return ctx.Err()
	}
	address, _ = serveUnix(t, f)
	s = dialFake(t, address)
	s.deadline = 50 * time.Millisecond
	_, err = s.OpenStream(t.Context(), forestAlone)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestEndsOfAStream(t *testing.T) {
	f := newStreamer(t)
	address, _ := serveUnix(t, f)
	s := dialFake(t, address)

	ctx, cancel := context.WithCancel(t.Context())
	stream, err := s.OpenStream(ctx, forestAlone)
	require.NoError(t, err)
	cancel()
	_, err = stream.Receive(t.Context())
	require.ErrorIs(t, err, context.Canceled, "the context of the stream")

	stream, err = s.OpenStream(t.Context(), forestAlone)
	require.NoError(t, err)
	require.NoError(t, stream.Close())
	require.NoError(t, stream.Close())
	_, err = stream.Receive(t.Context())
	require.ErrorIs(t, err, context.Canceled)

	stream, err = s.OpenStream(t.Context(), forestAlone)
	require.NoError(t, err)
	_, err = stream.Score(t.Context(), StreamSample{Series: strings.Repeat("x", 257), Values: make([]float64, 7)})
	require.ErrorIs(t, err, CodeInvalidRequest)
	assert.Equal(t, "samples[0].series", AsError(err).Field)
	require.ErrorIs(t, stream.Send(t.Context(), series("a", 0), StreamSample{Series: "\xff"}), CodeInvalidRequest)
	_, err = stream.Score(t.Context(), series("a", 0))
	require.NoError(t, err, "a name that would end the stream is not sent")
	stream.CloseSend()
	_, err = stream.Receive(t.Context())
	require.Equal(t, io.EOF, err)

	stream, err = s.OpenStream(t.Context(), forestAlone) // pinned
	require.NoError(t, err)
	f.id = "new"
	_, err = stream.Score(t.Context(), series("a", 0))
	require.ErrorIs(t, err, CodeModelSetMismatch)
	for _, c := range s.connections.list {
		assert.Zero(t, c.inFlight.Load(), "a stream that ended is no load")
	}
}

// TestAnswersThatBelongToNoRequest: a server that breaks the contract breaks the stream, never the client.
func TestAnswersThatBelongToNoRequest(t *testing.T) {
	f := newStreamer(t)
	f.before = func(_ context.Context, n int, r *anomalyv1.ScoreStreamRequest) error {
		if n == 1 {
			r.Samples = append(r.Samples, r.Samples[0])
		}
		return nil
	}
	stream := openStream(t, f, forestAlone)
	_, err := stream.Score(t.Context(), series("a", 0))
	require.ErrorIs(t, err, CodeInternal)
}
