package anomaly

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

const (
	// MaxStreamSamples is the largest number of samples in one request of a stream (rule ST7). A Stream splits what is longer by
	// itself.
	MaxStreamSamples = 4096
	// MaxSeriesBytes is the longest name of a series (rule ST7).
	MaxSeriesBytes = 256

	// requestsAhead is how many requests of a stream may be without an answer: one that the sidecar works on and one that waits
	// there, so that it is never idle. What is sent meanwhile goes into the next request together.
	requestsAhead = 2
	// everySeries stands for all series of a stream: it is the name of none.
	everySeries = "\x00"
	// samplesAhead is how many samples Send takes before their results are received.
	samplesAhead = 4 * MaxStreamSamples
)

// StreamSettings hold for all samples of a stream (rule ST1).
type StreamSettings struct {
	// Detectors score every sample, each of them, in this order.
	Detectors []Detector
	Explain   Explain
	// ModelSetID, when set, must be the id of the set in use, or of the fleet, as long as the stream lives. Empty for the pinned one of
	// the Sidecar; at a fleet, for any.
	ModelSetID string
}

// StreamSample is one sample of one series.
type StreamSample struct {
	// Series names it, in at most 256 bytes of UTF-8, for example a link. Each series has a window of its own.
	Series string
	// Values are raw values in the order of the feature schema (rule F1).
	Values []float64
	// Restart forgets the window of the series first: there is a gap before this sample (rule ST4).
	Restart bool
}

// StreamVerdict is what one detector says of one sample.
type StreamVerdict struct {
	// Verdict means something when Err is nil alone.
	Verdict Verdict
	// Err is why there is no verdict, an *Error: CodeWindowTooShort until the window of the series is full, or a fault of the
	// sample (rule ST5).
	Err error
}

// StreamResult is the answer to one sample.
type StreamResult struct {
	Sample StreamSample
	// Verdicts has one entry per detector of the settings, in their order.
	Verdicts []StreamVerdict
	// ModelSetID is the set that gave all of them. At a fleet it is the set of the series, and the id of the fleet where none gave any.
	ModelSetID string
}

// Stream scores samples as they come; the sidecar keeps the windows, so that each sample is sent once. It is safe for concurrent
// use. All samples that wait while the sidecar is busy travel in one request, whoever gave them: that is what makes streams fast.
//
// There are two ways to use it, also at the same time. Score sends samples and waits for their results. Send only sends, and
// Receive gives the results of sent samples in order; one goroutine sends, another receives.
//
// A stream that broke stays broken, and its windows are gone (rule ST3). Every method says why then, and Unanswered which samples
// of Send have no result. Open another stream, and send before the unanswered samples the window that came before them: the last
// `timesteps - 1` samples of each series, oldest first. Their results have been seen and are thrown away.
type Stream struct {
	sidecar    *Sidecar
	connection *connection
	stream     anomalyv1.ScoringService_ScoreStreamClient
	cancel     context.CancelFunc
	context    context.Context
	detectors  int
	wantedID   string

	mu sync.Mutex
	// changed is signalled when anything below changed.
	changed *sync.Cond
	// queue are the samples without a result, oldest first; the first `sent` of them are on their way, in requests of these lengths.
	queue    []queued
	sent     int
	requests []int
	// results of Send wait for Receive.
	results []StreamResult
	// ending: CloseSend was called.
	ending bool
	// err is why the stream ended, io.EOF after CloseSend when every sample has its result.
	err error
}

// queued is a sample without a result. call is nil when Send gave it.
type queued struct {
	message *anomalyv1.StreamSample
	call    *streamCall
}

// streamCall is a Score that waits.
type streamCall struct {
	want    int
	results []StreamResult
	done    chan struct{}
}

// OpenStream opens a stream and waits until the sidecar has accepted its settings. It lives until ctx is done, or until Close. A
// stream is not opened again by itself; the opening is tried again as WithRetries says.
func (s *Sidecar) OpenStream(ctx context.Context, settings StreamSettings) (*Stream, error) {
	id := s.wanted(settings.ModelSetID, everySeries)
	message := &anomalyv1.StreamSettings{Explain: anomalyv1.Explain(settings.Explain), ModelSetId: id}
	for _, d := range settings.Detectors {
		message.Detectors = append(message.Detectors, anomalyv1.Detector(d))
	}
	t := &Stream{sidecar: s, detectors: len(settings.Detectors), wantedID: id}
	t.changed = sync.NewCond(&t.mu)
	var reply *anomalyv1.ScoreStreamResponse
	err := s.call(ctx, func(opening context.Context, c *connection) (err error) {
		t.connection = c
		t.context, t.cancel = context.WithCancel(ctx) // outlives the opening
		inTime := context.AfterFunc(opening, t.cancel)
		if t.stream, err = c.client.ScoreStream(t.context); err == nil {
			_ = t.stream.Send(&anomalyv1.ScoreStreamRequest{Settings: message}) // what is wrong, Recv says
			reply, err = t.stream.Recv()
		}
		if err == nil && !inTime() {
			err = status.FromContextError(opening.Err()).Err()
		}
		if err != nil {
			t.cancel()
		}
		return err
	})
	if err == nil {
		err = s.checkID(id, reply.GetModelSetId(), everySeries)
	}
	if err != nil {
		if t.cancel != nil {
			t.cancel()
		}
		return nil, err
	}
	t.connection.inFlight.Add(1)
	go t.write()
	go t.read()
	return t, nil
}

// Score sends samples and gives their results, in order. It waits as long as a call to the sidecar may take (WithDeadline). After
// an error there are results for the first samples only, and the rest counts as not answered; when the deadline has passed, but the
// stream has not broken, they may be in the windows all the same: set Restart if that matters.
func (t *Stream) Score(ctx context.Context, samples ...StreamSample) ([]StreamResult, error) {
	if len(samples) == 0 {
		return nil, nil
	}
	messages, refusal := streamMessages(samples)
	if refusal != nil {
		return nil, refusal
	}
	ctx, cancel := t.sidecar.withDeadline(ctx)
	defer cancel()
	call := &streamCall{want: len(samples), results: make([]StreamResult, 0, len(samples)), done: make(chan struct{})}
	t.mu.Lock()
	err := t.refusesMore()
	if err == nil {
		t.enqueue(messages, call)
	}
	t.mu.Unlock()
	if err != nil {
		return nil, err
	}
	select {
	case <-call.done:
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch results := call.results; {
	case len(results) == call.want:
		return results, nil
	case t.err != nil:
		return results, t.err
	default:
		return results, callFailed(ctx, status.FromContextError(ctx.Err()).Err(), 1)
	}
}

// Send hands over samples whose results Receive will give, and does not wait for the sidecar. Once 16,384 results have not been
// received it waits until they are, or ctx is done; so the goroutine that receives must be another one. The values are copied. An
// error means that none of the samples was taken.
func (t *Stream) Send(ctx context.Context, samples ...StreamSample) error {
	messages, refusal := streamMessages(samples)
	if refusal != nil {
		return refusal
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	err := t.wait(ctx, func() bool { return t.refusesMore() != nil || len(t.queue)+len(t.results) < samplesAhead })
	if err == nil {
		err = t.refusesMore()
	}
	if err == nil {
		t.enqueue(messages, nil)
	}
	return err
}

// Receive gives the result of the oldest sample of Send whose result was not given yet; it waits for one until ctx is done. After
// CloseSend and the last result it is io.EOF; when the stream broke, the results that came before that are given first.
func (t *Stream) Receive(ctx context.Context) (StreamResult, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.wait(ctx, func() bool { return len(t.results) > 0 || t.err != nil }); err != nil {
		return StreamResult{}, err
	}
	if len(t.results) == 0 {
		return StreamResult{}, t.err
	}
	result := t.results[0]
	t.results[0] = StreamResult{}
	t.results = t.results[1:]
	if len(t.queue)+len(t.results) == samplesAhead-1 { // a sender may wait for room
		t.changed.Broadcast()
	}
	return result, nil
}

// CloseSend says that no samples will follow. Those sent are still answered.
func (t *Stream) CloseSend() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ending = true
	t.changed.Broadcast()
}

// Close ends the stream at once. What was not answered will not be.
func (t *Stream) Close() error {
	t.cancel()
	t.fail(status.FromContextError(t.context.Err()).Err())
	return nil
}

// Unanswered are the samples of Send without a result, oldest first. They are final once Receive gave an error that is not of its
// context.
func (t *Stream) Unanswered() []StreamSample {
	t.mu.Lock()
	defer t.mu.Unlock()
	var samples []StreamSample
	for _, q := range t.queue {
		if q.call == nil {
			samples = append(samples, sampleOf(q.message))
		}
	}
	return samples
}

// refusesMore says why no sample can be taken, nil when one can.
func (t *Stream) refusesMore() error {
	switch {
	case t.err != nil:
		return t.err
	case t.ending:
		return refuse(CodeInvalidRequest, "samples", "CloseSend was called on this stream; open another one")
	}
	return nil
}

func (t *Stream) enqueue(messages []*anomalyv1.StreamSample, call *streamCall) {
	for _, m := range messages {
		t.queue = append(t.queue, queued{m, call})
	}
	t.changed.Broadcast()
}

// wait waits with mu held until until holds, or ctx is done.
func (t *Stream) wait(ctx context.Context, until func() bool) error {
	if until() {
		return nil
	}
	stop := context.AfterFunc(ctx, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.changed.Broadcast()
	})
	defer stop()
	for !until() {
		if ctx.Err() != nil {
			return callFailed(ctx, status.FromContextError(ctx.Err()).Err(), 1)
		}
		t.changed.Wait()
	}
	return nil
}

// write sends what waits, together, whenever the sidecar has fewer than requestsAhead requests to answer.
func (t *Stream) write() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.err == nil {
		waiting := t.queue[t.sent:]
		switch {
		case len(waiting) > 0 && len(t.requests) < requestsAhead:
			waiting = waiting[:min(len(waiting), MaxStreamSamples)]
			request := &anomalyv1.ScoreStreamRequest{Samples: make([]*anomalyv1.StreamSample, len(waiting))}
			for i, q := range waiting {
				request.Samples[i] = q.message
			}
			t.sent += len(waiting)
			t.requests = append(t.requests, len(waiting))
			t.mu.Unlock()
			err := t.stream.Send(request)
			t.mu.Lock()
			if err != nil { // read learns why
				return
			}
		case t.ending && len(waiting) == 0:
			_ = t.stream.CloseSend()
			return
		default:
			t.changed.Wait()
		}
	}
}

// read gives every result to who waits for it, until the stream ends.
func (t *Stream) read() {
	for {
		reply, err := t.stream.Recv()
		if err == nil {
			err = t.take(reply)
		}
		if err != nil {
			t.fail(err)
			return
		}
	}
}

// take hands out the results of the oldest request.
func (t *Stream) take(reply *anomalyv1.ScoreStreamResponse) error {
	if err := t.sidecar.checkID(t.wantedID, reply.GetModelSetId(), everySeries); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.requests) == 0 || t.requests[0] != len(reply.GetResults()) {
		return refuse(CodeInternal, "", "the sidecar answered %d samples; asked for were %v", len(reply.GetResults()), t.requests)
	}
	for i, result := range reply.GetResults() {
		if len(result.GetVerdicts()) != t.detectors {
			return refuse(CodeInternal, "", "the sidecar answered with %d verdicts for %d detectors", len(result.GetVerdicts()), t.detectors)
		}
		q := t.queue[i]
		r := StreamResult{Sample: sampleOf(q.message), Verdicts: readVerdicts(result), ModelSetID: cmp.Or(result.GetModelSetId(), reply.GetModelSetId())}
		if q.call == nil {
			t.results = append(t.results, r)
		} else if q.call.results = append(q.call.results, r); len(q.call.results) == q.call.want {
			close(q.call.done)
		}
	}
	n := t.requests[0]
	clear(t.queue[:n])
	t.queue, t.sent, t.requests = t.queue[n:], t.sent-n, slices.Delete(t.requests, 0, 1)
	t.changed.Broadcast()
	return nil
}

// fail ends the stream, once, and everybody's waiting. err is a status, io.EOF where the sidecar ended it properly, or an *Error.
func (t *Stream) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil {
		return
	}
	switch e := err.(type) {
	case *Error:
		t.err = e
	default:
		if err == io.EOF && !(t.ending && len(t.queue) == 0) {
			err = status.Error(codes.Unavailable, "the sidecar ended the stream")
		}
		if t.err = err; err != io.EOF {
			t.err = callFailed(t.context, err, 1)
		}
	}
	t.cancel()
	t.connection.inFlight.Add(-1)
	var last *streamCall
	for _, q := range t.queue {
		if q.call != nil && q.call != last { // the samples of a call stand together
			close(q.call.done)
		}
		last = q.call
	}
	t.changed.Broadcast()
}

// streamMessages checks what would end the whole stream, and copies the samples.
func streamMessages(samples []StreamSample) ([]*anomalyv1.StreamSample, *Error) {
	messages := make([]*anomalyv1.StreamSample, len(samples))
	for i, s := range samples {
		if len(s.Series) > MaxSeriesBytes || !utf8.ValidString(s.Series) {
			return nil, refuse(CodeInvalidRequest, fmt.Sprintf("samples[%d].series", i),
				"%.60q is no name of a series; give at most %d bytes of UTF-8", s.Series, MaxSeriesBytes)
		}
		messages[i] = &anomalyv1.StreamSample{Series: s.Series, Values: slices.Clone(s.Values), Restart: s.Restart}
	}
	return messages, nil
}

func sampleOf(m *anomalyv1.StreamSample) StreamSample {
	return StreamSample{Series: m.GetSeries(), Values: m.GetValues(), Restart: m.GetRestart()}
}

func readVerdicts(result *anomalyv1.StreamResult) []StreamVerdict {
	verdicts := make([]StreamVerdict, len(result.GetVerdicts()))
	for i, v := range result.GetVerdicts() {
		switch outcome := v.GetOutcome().(type) {
		case *anomalyv1.StreamVerdict_Verdict:
			readVerdict(outcome.Verdict, &verdicts[i].Verdict)
		case *anomalyv1.StreamVerdict_Error:
			e := outcome.Error
			verdicts[i].Err = &Error{Code: Code(e.GetCode()), Field: e.GetField(), Message: e.GetMessage()}
		default:
			verdicts[i].Err = refuse(CodeInternal, "", "the sidecar answered with neither a verdict nor an error")
		}
	}
	return verdicts
}
