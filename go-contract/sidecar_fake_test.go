package anomaly

import (
	"context"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// scripted answers Score with the outcome of a function of the number of the call, from 1.
type scripted struct {
	anomalyv1.UnimplementedScoringServiceServer
	id      string
	outcome func(n int64, ctx context.Context) error
	calls   atomic.Int64
	mu      sync.Mutex
	at      []time.Time
}

func (f *scripted) GetModelSet(context.Context, *anomalyv1.GetModelSetRequest) (*anomalyv1.GetModelSetResponse, error) {
	return &anomalyv1.GetModelSetResponse{ModelSetId: f.id}, nil
}

func (f *scripted) Score(ctx context.Context, r *anomalyv1.ScoreRequest) (*anomalyv1.ScoreResponse, error) {
	n := f.calls.Add(1)
	f.mu.Lock()
	f.at = append(f.at, time.Now())
	outcome := f.outcome
	f.mu.Unlock()
	if err := outcome(n, ctx); err != nil {
		return nil, err
	}
	return &anomalyv1.ScoreResponse{ModelSetId: f.id, Verdict: &anomalyv1.Verdict{Score: 42}}, nil
}

// becomes changes the outcome of the calls that follow.
func (f *scripted) becomes(outcome func(int64, context.Context) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.outcome = outcome
}

func (f *scripted) times() []time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]time.Time(nil), f.at...)
}

// failing fails the first n calls with a status, then answers.
func failing(n int64, code codes.Code) func(int64, context.Context) error {
	return func(call int64, _ context.Context) error {
		if call <= n {
			return status.Error(code, "scripted")
		}
		return nil
	}
}

func answering(int64, context.Context) error { return nil }

// hanging answers no call before its caller has gone.
func hanging(_ int64, ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// serveOn serves any implementation on a listener until the test ends, or until the function it gives is called.
func serveOn(t *testing.T, listener net.Listener, service anomalyv1.ScoringServiceServer, opts ...grpc.ServerOption) (stop func()) {
	t.Helper()
	server := grpc.NewServer(opts...)
	anomalyv1.RegisterScoringServiceServer(server, service)
	if operations, ok := service.(anomalyv1.OperationsServiceServer); ok {
		anomalyv1.RegisterOperationsServiceServer(server, operations)
	}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return server.Stop
}

func serveUnix(t *testing.T, service anomalyv1.ScoringServiceServer) (address string, stop func()) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	return "unix:" + path, serveAt(t, path, service)
}

func serveAt(t *testing.T, path string, service anomalyv1.ScoringServiceServer) (stop func()) {
	t.Helper()
	listener, err := net.Listen("unix", path)
	require.NoError(t, err)
	return serveOn(t, listener, service)
}

func dialFake(t *testing.T, address string, opts ...SidecarOption) *Sidecar {
	t.Helper()
	// A busy machine must not fail a test: the deadline is long unless the test is about it.
	s, err := DialSidecar(t.Context(), address, append([]SidecarOption{WithDeadline(20 * time.Second)}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

var oneSample = Request{Detector: IsolationForest, Samples: [][]float64{{100, 10, .01, 1, 30, 40, .001}}}
