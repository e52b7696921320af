package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// result is what is printed.
type result struct {
	Call string `json:"call"`
	Rows int    `json:"rows_per_request"`
	// Seconds that were measured.
	Seconds           float64           `json:"seconds"`
	Requests          uint64            `json:"requests"`
	RequestsPerSecond float64           `json:"requests_per_second"`
	RowsPerSecond     float64           `json:"rows_per_second"`
	Latency           latency           `json:"latency_ms"`
	Errors            map[string]uint64 `json:"errors"`
	// FirstAnswerSeconds is how long the first answer was waited for.
	FirstAnswerSeconds float64 `json:"first_answer_seconds"`
	// FirstScore is the score of the first row.
	FirstScore *float32 `json:"first_score,omitempty"`
	// ClientCPUSeconds is this process's own time, user and system, while measuring.
	ClientCPUSeconds float64 `json:"client_cpu_seconds"`
	// ClientCPUShare is the same as a share of one core: near 1 with one core, or near the number of cores, the client is the bottleneck.
	ClientCPUShare float64 `json:"client_cpu_share_of_a_core"`
}

// latency holds quantiles in milliseconds.
type latency struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// tally is what one caller counted. Each has its own, so that callers do not wait for each other.
type tally struct {
	latencies histogram
	requests  uint64
	errors    map[codes.Code]uint64
}

func (t *tally) record(took time.Duration, err error) {
	if err != nil {
		if t.errors == nil {
			t.errors = map[codes.Code]uint64{}
		}
		t.errors[status.Code(err)]++
		return
	}
	t.requests++
	t.latencies.add(took)
}

// clock says which part of the run it is. Calls are counted when they end while measuring.
type clock struct{ phase atomic.Int32 }

const (
	warmingUp int32 = iota
	measuring
	over
)

func (c *clock) measuring() bool { return c.phase.Load() == measuring }
func (c *clock) over() bool      { return c.phase.Load() == over }

// drainTime is how long calls may take to end after the measurement.
const drainTime = 10 * time.Second

func runLoad(s settings) (*result, error) {
	work, err := newWorkload(s)
	if err != nil {
		return nil, err
	}
	out := &result{Call: s.call, Rows: s.rows, Errors: map[string]uint64{}}
	begin := time.Now()
	score, err := awaitAnswer(s, work)
	if err != nil {
		return nil, err
	}
	out.FirstAnswerSeconds = time.Since(begin).Seconds()
	if !s.unchecked {
		out.FirstScore = &score
	}
	if s.duration == 0 {
		return out, nil
	}
	connections, err := dialAll(s)
	if err != nil {
		return nil, err
	}
	callers := s.concurrency
	if s.call == "stream" {
		callers = s.streams
	}
	// No deadline for each call: it would be a timer and a header field that changes. One for all ends a server that hangs.
	ctx, cancel := context.WithTimeout(context.Background(), s.warmUp+s.duration+drainTime)
	defer cancel()
	var shared *sharedStreams
	if s.call == sharedStream {
		if shared, err = openShared(ctx, s); err != nil {
			return nil, err
		}
		defer shared.close()
	}
	tallies := make([]tally, callers)
	stages := &clock{}
	var running sync.WaitGroup
	for i := range callers {
		connection := connections[i%len(connections)]
		running.Go(func() {
			switch s.call {
			case "stream":
				runStream(ctx, connection, work, s, i, stages, &tallies[i])
			case sharedStream:
				shared.runSharer(ctx, s, i, stages, &tallies[i])
			default:
				runCaller(ctx, connection, work, i, stages, &tallies[i])
			}
		})
	}
	out.measure(s, stages)
	running.Wait()
	for _, connection := range connections {
		connection.Close()
	}
	out.add(tallies)
	if out.Requests == 0 {
		return nil, fmt.Errorf("no request was answered in %s; errors: %v", s.duration, out.Errors)
	}
	return out, nil
}

// measure lets the callers run and notes time and CPU time.
func (r *result) measure(s settings, stages *clock) {
	time.Sleep(s.warmUp)
	begin, cpu := time.Now(), cpuSeconds()
	stages.phase.Store(measuring)
	time.Sleep(s.duration)
	stages.phase.Store(over)
	r.Seconds = time.Since(begin).Seconds()
	r.ClientCPUSeconds = cpuSeconds() - cpu
	r.ClientCPUShare = r.ClientCPUSeconds / r.Seconds
}

func (r *result) add(tallies []tally) {
	all := &histogram{}
	for i := range tallies {
		all.merge(&tallies[i].latencies)
		r.Requests += tallies[i].requests
		for code, n := range tallies[i].errors {
			r.Errors[code.String()] += n
		}
	}
	r.RequestsPerSecond = float64(r.Requests) / r.Seconds
	r.RowsPerSecond = r.RequestsPerSecond * float64(r.Rows)
	r.Latency = latency{P50: all.quantile(.5), P90: all.quantile(.9), P99: all.quantile(.99), Max: float64(all.max) / 1e6}
}

// runCaller sends unary calls one after another.
func runCaller(ctx context.Context, connection *grpc.ClientConn, work *workload, number int, stages *clock, t *tally) {
	var request, answer message
	for i := number; !stages.over() && ctx.Err() == nil; i++ {
		request.bytes = work.requests[i%len(work.requests)]
		start := time.Now()
		err := connection.Invoke(ctx, work.method, &request, &answer)
		if stages.measuring() {
			t.record(time.Since(start), err)
		}
	}
}

// cpuSeconds is what this process used so far, user and system.
func cpuSeconds() float64 {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
}

// windowBytes is the flow-control window for answers of a stream and of a connection.
const windowBytes = 16 << 20

func dial(address string) (*grpc.ClientConn, error) {
	if !strings.HasPrefix(address, "unix:") {
		address = "passthrough:///" + address
	}
	return grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy(),
		grpc.WithInitialWindowSize(windowBytes),
		grpc.WithInitialConnWindowSize(windowBytes),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(codec{}), grpc.MaxCallRecvMsgSize(65<<20), grpc.MaxCallSendMsgSize(65<<20)),
	)
}

func dialAll(s settings) (connections []*grpc.ClientConn, err error) {
	for i := range s.connections {
		connection, err := dial(s.addresses[i%len(s.addresses)])
		if err != nil {
			return nil, err
		}
		connections = append(connections, connection)
	}
	return connections, nil
}

// retryEvery is how often a server that does not answer yet is asked again; the time to the first answer is known no better.
const retryEvery = 2 * time.Millisecond

// awaitAnswer asks every server once, again and again until it answers, and returns the score of the last one's first row.
func awaitAnswer(s settings, work *workload) (score float32, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), s.wait)
	defer cancel()
	for _, address := range s.addresses {
		var last error
		for {
			score, err = askOnce(ctx, address, work, s.unchecked)
			if err == nil {
				break
			}
			if last == nil || !(os.IsTimeout(err) || status.Code(err) == codes.DeadlineExceeded) {
				last = err // that the time is over says less than what was wrong before
			}
			if ctx.Err() != nil {
				return 0, fmt.Errorf("no answer from %s within %s: %w", address, s.wait, last)
			}
			time.Sleep(retryEvery)
		}
	}
	return score, nil
}

// askOnce makes one call on a connection of its own, so that gRPC's waiting time after a failed connection does not count.
func askOnce(ctx context.Context, address string, work *workload, unchecked bool) (float32, error) {
	network, where := "tcp", address
	if path, found := strings.CutPrefix(address, "unix:"); found {
		network, where = "unix", path
	}
	probe, err := (&net.Dialer{}).DialContext(ctx, network, where)
	if err != nil {
		return 0, err
	}
	if probe.LocalAddr().String() == probe.RemoteAddr().String() && network == "tcp" {
		// Nobody listens, and the port that the system chose for this end is the one asked for: TCP connects it to itself. It must
		// not keep the server from binding the port.
		probe.(*net.TCPConn).SetLinger(0)
		err = errors.New("connection refused")
	}
	probe.Close()
	if err != nil {
		return 0, err
	}
	connection, err := dial(address)
	if err != nil {
		return 0, err
	}
	defer connection.Close()
	answer := message{keep: true}
	if work.settings != nil {
		err = askStreamOnce(ctx, connection, work, &answer)
	} else {
		err = connection.Invoke(ctx, work.method, &message{bytes: work.requests[0]}, &answer)
	}
	if err != nil || unchecked {
		return 0, err
	}
	return work.score(answer.bytes)
}
