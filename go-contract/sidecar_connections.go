package anomaly

import (
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// connection is one connection and what is going on over it.
type connection struct {
	*grpc.ClientConn
	client anomalyv1.ScoringServiceClient
	// inFlight counts calls and open streams.
	inFlight atomic.Int64
}

// connections are all that lead to one sidecar, in no order.
type connections struct {
	list []*connection
	next atomic.Uint64
}

// reconnect is how soon a lost connection is tried again: a sidecar restarts within a second, and gRPC's own minute would be felt.
var reconnect = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
	MinConnectTimeout: 5 * time.Second,
}

// alive ends a connection whose other end is gone without a word once something was sent over it. Pings proper are rarer than any
// server minds.
var alive = keepalive.ClientParameters{Time: 6 * time.Minute, Timeout: 10 * time.Second}

// connect prepares connections to every address of a list separated by commas. It waits for none of them.
func connect(addresses string, o *sidecarOptions) (*connections, error) {
	secure := insecure.NewCredentials()
	if o.tls != nil {
		var refusal *Error
		if secure, refusal = o.tls.credentials(); refusal != nil {
			return nil, refusal
		}
	}
	all := &connections{}
	for address := range strings.SplitSeq(addresses, ",") {
		for range max(o.connections, 1) {
			c, err := grpc.NewClient(strings.TrimSpace(address), dialOptions(address, secure, o.dial)...)
			if err != nil {
				all.close()
				return nil, refuse(CodeInternal, "", "sidecar %s: %w", address, err)
			}
			c.Connect()
			all.list = append(all.list, &connection{ClientConn: c, client: anomalyv1.NewScoringServiceClient(c)})
		}
	}
	return all, nil
}

func dialOptions(address string, secure credentials.TransportCredentials, others []grpc.DialOption) []grpc.DialOption {
	if strings.HasPrefix(strings.TrimSpace(address), "unix") {
		secure = insecure.NewCredentials() // the mode of the socket is its access control
	}
	return append([]grpc.DialOption{
		grpc.WithTransportCredentials(secure),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes), grpc.MaxCallSendMsgSize(maxMessageBytes)),
		grpc.WithConnectParams(reconnect),
		grpc.WithKeepaliveParams(alive),
		grpc.WithIdleTimeout(0), // a connection that was let go would cost the next call its set-up
		grpc.WithNoProxy(),      // a proxy of the environment is not for a sidecar
	}, others...)
}

// pick gives the best connection for a call: one that stands, not the one of the last attempt, and of these the one with the fewest
// calls in flight; equal ones take turns.
func (a *connections) pick(last *connection) *connection {
	if len(a.list) == 1 {
		return a.list[0]
	}
	var best *connection
	var bestRank int
	var bestLoad int64
	turn := a.next.Load()
	if last == nil { // a further attempt is not a turn: else calls that fail at once would always begin at the same connection
		turn = a.next.Add(1)
	}
	for i := range a.list {
		c := a.list[(turn+uint64(i))%uint64(len(a.list))]
		rank, load := 2*c.rank(), c.inFlight.Load()
		if c == last {
			rank++
		}
		if best == nil || rank < bestRank || rank == bestRank && load < bestLoad {
			best, bestRank, bestLoad = c, rank, load
		}
	}
	return best
}

// rank is 0 for a connection that stands, more for one that may take longer or fail.
func (c *connection) rank() int {
	switch c.GetState() {
	case connectivity.Ready:
		return 0
	case connectivity.Idle: // the server closed it
		c.Connect()
		return 1
	case connectivity.Connecting:
		return 1
	default:
		return 2
	}
}

func (a *connections) close() error {
	var first error
	for _, c := range a.list {
		if err := c.Close(); err != nil && first == nil {
			first = err
		}
	}
	return first
}
