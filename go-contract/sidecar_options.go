package anomaly

import (
	"time"

	"google.golang.org/grpc"
)

const (
	// DefaultDeadline is how long a call to a sidecar may take, attempts and pauses included, unless the caller's context is shorter.
	DefaultDeadline = 250 * time.Millisecond
	// DefaultRetries is how often a call is sent again where that is safe.
	DefaultRetries = 3
)

type sidecarOptions struct {
	deadline    time.Duration
	retries     int
	connections int
	modelSetID  string
	series      string
	follow      bool
	changed     func(id string)
	tls         *TLSFiles
	dial        []grpc.DialOption
}

// SidecarOption changes how a sidecar is asked.
type SidecarOption func(*sidecarOptions)

// WithDeadline sets how long a call may take, attempts and pauses included; 0 means no deadline but that of the caller's context.
func WithDeadline(d time.Duration) SidecarOption {
	return func(o *sidecarOptions) { o.deadline = d }
}

// WithRetries sets how often a call is sent again at most; 0 means never. Sent again are calls that scored nothing or whose answer
// was lost: those that end with UNAVAILABLE, RESOURCE_EXHAUSTED, or CANCELLED without the caller's doing. Scoring has no effects,
// so that this is safe. A refusal is never sent again, nor a call whose deadline has passed. Between two attempts lies a pause of 5
// to 10 ms, twice that, and so on. No more than one call in ten is sent again for long: a server that is overloaded is not asked
// more for it.
func WithRetries(n int) SidecarOption {
	return func(o *sidecarOptions) { o.retries = n }
}

// WithConnections opens n connections to each address. A call takes the one with the fewest calls in flight. A sidecar with several
// workers behind one TCP address needs several, as a connection stays with one worker. The default is one.
func WithConnections(n int) SidecarOption {
	return func(o *sidecarOptions) { o.connections = max(n, 1) }
}

// WithModelSetID refuses a sidecar that has another model set open, now and with every call. Without it, the set that the sidecar
// has open when it is dialled is pinned. After the sidecar loaded another set every call is MODEL_SET_MISMATCH, until it is dialled
// anew. At a fleet the set of WithSeries is pinned; without WithSeries, and for the requests of other series, nothing is.
func WithModelSetID(id string) SidecarOption {
	return func(o *sidecarOptions) { o.modelSetID, o.follow = id, false }
}

// FollowModelSet pins nothing: whatever set the sidecar has open gives the scores. ID and Metadata become those of the new set soon
// after the first answer from it; then changed is called with the new id, from another goroutine, unless it is nil. A request that
// names a ModelSetID is still held to it.
func FollowModelSet(changed func(id string)) SidecarOption {
	return func(o *sidecarOptions) { o.modelSetID, o.follow, o.changed = "", true, changed }
}

// WithSeries makes a Sidecar that asks a fleet a Scorer of one series: requests without a Series are of this one, and ID, Metadata
// and the pinned set are those of its model set (rule FL2). A sidecar with one model set does not look at it.
func WithSeries(series string) SidecarOption {
	return func(o *sidecarOptions) { o.series = series }
}

// WithTLS encrypts TCP connections; unix sockets stay plain.
func WithTLS(files TLSFiles) SidecarOption {
	return func(o *sidecarOptions) { o.tls = &files }
}

// WithDialOptions adds options of gRPC, for example transport credentials; they win over those of this package. The default is a plain
// connection, meant for a unix socket or the loopback interface.
func WithDialOptions(options ...grpc.DialOption) SidecarOption {
	return func(o *sidecarOptions) { o.dial = append(o.dial, options...) }
}
