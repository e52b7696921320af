package anomaly

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
)

// countingListener counts accepted connections.
type countingListener struct {
	net.Listener
	mu       sync.Mutex
	accepted int
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.mu.Lock()
		l.accepted++
		l.mu.Unlock()
	}
	return c, err
}

func (l *countingListener) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.accepted
}

// ready waits until every connection stands.
func ready(t *testing.T, s *Sidecar) {
	t.Helper()
	require.Eventually(t, func() bool {
		for _, c := range s.connections.list {
			if c.rank() != 0 {
				return false
			}
		}
		return true
	}, 10*time.Second, time.Millisecond)
}

func TestEveryConnectionOfOneAddressIsOpened(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	counting := &countingListener{Listener: listener}
	serveOn(t, counting, &scripted{id: "a", outcome: answering})
	s := dialFake(t, listener.Addr().String(), WithConnections(3))
	ready(t, s)
	assert.Equal(t, 3, counting.count())
}

func TestCallsAreSharedByAllAddresses(t *testing.T) {
	workers := make([]*scripted, 3)
	var addresses []string
	for i := range workers {
		workers[i] = &scripted{id: "a", outcome: answering}
		address, _ := serveUnix(t, workers[i])
		addresses = append(addresses, address)
	}
	s := dialFake(t, strings.Join(addresses, ", "))
	ready(t, s)
	var v Verdict
	for range 30 { // one after the other: all are equally loaded, so they take turns
		require.NoError(t, s.Score(t.Context(), oneSample, &v))
	}
	for _, w := range workers {
		assert.EqualValues(t, 10, w.calls.Load())
	}
}

// TestTheLeastLoadedConnectionIsTaken: a worker that hangs holds up the calls it has, and gets no further ones.
func TestTheLeastLoadedConnectionIsTaken(t *testing.T) {
	stuck, quick := &scripted{id: "a", outcome: hanging}, &scripted{id: "a", outcome: answering}
	one, _ := serveUnix(t, stuck)
	two, _ := serveUnix(t, quick)
	s := dialFake(t, one+","+two)
	ready(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	var hung sync.WaitGroup
	var v Verdict
	for stuck.calls.Load() == 0 {
		before := quick.calls.Load()
		hung.Go(func() {
			var v Verdict
			_ = s.Score(ctx, oneSample, &v)
		})
		require.Eventually(t, func() bool { return stuck.calls.Load() == 1 || quick.calls.Load() > before }, 10*time.Second, time.Millisecond)
	}
	quick.calls.Store(0)
	for range 50 {
		require.NoError(t, s.Score(t.Context(), oneSample, &v))
	}
	assert.EqualValues(t, 50, quick.calls.Load())
	assert.EqualValues(t, 1, stuck.calls.Load())
	cancel()
	hung.Wait()
}

// TestAFailedCallGoesToAnotherConnection: one worker is stopping, the other answers.
func TestAFailedCallGoesToAnotherConnection(t *testing.T) {
	down, up := &scripted{id: "a", outcome: failing(1<<40, codes.Unavailable)}, &scripted{id: "a", outcome: answering}
	one, _ := serveUnix(t, down)
	two, _ := serveUnix(t, up)
	s := dialFake(t, one+","+two, WithRetries(1))
	ready(t, s)
	var v Verdict
	for range 10 {
		require.NoError(t, s.Score(t.Context(), oneSample, &v))
	}
	assert.EqualValues(t, 10, up.calls.Load())
	assert.EqualValues(t, 5, down.calls.Load())
}

// TestADeadAddressCostsNothing: calls go where a connection stands, and come back when the worker does.
func TestADeadAddressCostsNothing(t *testing.T) {
	up := &scripted{id: "a", outcome: answering}
	address, _ := serveUnix(t, up)
	path := filepath.Join(t.TempDir(), "later")
	s := dialFake(t, "unix:"+path+","+address, WithRetries(0))
	var v Verdict
	require.Eventually(t, func() bool { // until the first attempt at the dead one has failed
		return s.Score(t.Context(), oneSample, &v) == nil && s.connections.list[0].rank() == 2
	}, 10*time.Second, time.Millisecond)
	for range 20 {
		require.NoError(t, s.Score(t.Context(), oneSample, &v))
	}
	later := &scripted{id: "a", outcome: answering}
	serveAt(t, path, later)
	require.Eventually(t, func() bool {
		return s.Score(t.Context(), oneSample, &v) == nil && later.calls.Load() > 0
	}, 10*time.Second, 10*time.Millisecond)
}

func TestARestartedSidecarIsFoundAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	stop := serveAt(t, path, &scripted{id: "a", outcome: answering})
	s := dialFake(t, "unix:"+path)
	var v Verdict
	require.NoError(t, s.Score(t.Context(), oneSample, &v))
	stop()
	require.ErrorIs(t, s.Score(t.Context(), oneSample, &v), ErrUnavailable)
	serveAt(t, path, &scripted{id: "a", outcome: answering})
	started := time.Now()
	require.Eventually(t, func() bool { return s.Score(t.Context(), oneSample, &v) == nil }, 10*time.Second, 10*time.Millisecond)
	assert.Less(t, time.Since(started), 5*time.Second)
}

func TestAnAddressThatIsNone(t *testing.T) {
	_, err := DialSidecar(t.Context(), "nosuchscheme://%zz")
	require.Error(t, err)
	_, err = DialSidecar(t.Context(), "unix:"+filepath.Join(t.TempDir(), "nobody"))
	require.ErrorIs(t, err, ErrUnavailable)
}
