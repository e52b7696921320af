package server

import (
	"crypto/ed25519"
	"net"
	"time"
)

// DefaultListen is used when neither a TCP address nor a unix socket is given: loopback, never all interfaces.
const DefaultListen = "127.0.0.1:50051"

// Settings say how to serve.
type Settings struct {
	// Models is the folder of the model set, or of a fleet.
	Models string
	// Listen is `host:port`, port 0 for any free one; empty for no TCP.
	Listen string
	// Unix is the path of a unix socket; empty for none.
	Unix string
	// Metrics is `host:port` of the page for Prometheus; empty for none.
	Metrics string
	// Grace is what calls in flight get to finish when the server is told to stop.
	Grace time.Duration
	// ReadyFile is written when the server answers, with the line it prints; removed when it stops. Empty for none.
	ReadyFile string
	// Feedback is a file with what operators said of alarms, for the page for Prometheus (rule M5); empty for none.
	Feedback string
	// DriftWindow is the number of recent rows of each detector that are compared with its training rows, where there are metrics; 0
	// compares nothing (rule DR6).
	DriftWindow int
	// Watch is the time between looks at the model folder (rule R1); 0 for none.
	Watch time.Duration
	// TLS is for the TCP address; the unix socket stays plain.
	TLS TLS
	// Reflection says whether the services can be listed.
	Reflection Reflection
	// PublicKeys: one of these must have signed a model set, at the start and at each reload (rule A8); none asks for no signature.
	PublicKeys []ed25519.PublicKey
	// MaxSets is how many sets of a fleet are open; 0 is anomaly.DefaultMaxSets.
	MaxSets int
	Limits
}

// Limits are what the process takes on (rules L2 to L5).
type Limits struct {
	// MaxInFlight is the number of unary scoring calls at a time.
	MaxInFlight int
	// MaxStreams is the number of open streams.
	MaxStreams int
	// MaxSeries is the number of series of one stream.
	MaxSeries int
	// StreamIdle is how long nothing may move on a stream.
	StreamIdle time.Duration
}

// DefaultDriftWindow is that of the command.
const DefaultDriftWindow = 4096

// DefaultLimits are those that the command has.
func DefaultLimits() Limits {
	return Limits{MaxInFlight: 1024, MaxStreams: 1024, MaxSeries: 10_000, StreamIdle: 5 * time.Minute}
}

// Reflection says whether the services can be listed.
type Reflection string

// The values of Reflection. The zero value is ReflectionAuto.
const (
	// ReflectionAuto is off with mutual TLS, else on.
	ReflectionAuto Reflection = "auto"
	ReflectionOn   Reflection = "on"
	ReflectionOff  Reflection = "off"
)

func (s Settings) reflection() bool {
	return s.Reflection == ReflectionOn || (s.Reflection != ReflectionOff && !s.TLS.mutual())
}

// check refuses settings that nothing can be done with, as a StartError.
func (s Settings) check() error {
	if s.Listen == "" && s.Unix == "" {
		return cannotStart("nothing to listen on; give --listen HOST:PORT or --unix PATH")
	}
	for _, limit := range []struct {
		flag  string
		value int
	}{{"--max-in-flight", s.MaxInFlight}, {"--max-streams", s.MaxStreams}, {"--max-series", s.MaxSeries}} {
		if limit.value < 1 || limit.value > 1<<30 {
			return cannotStart("%s is %d; give at least 1", limit.flag, limit.value)
		}
	}
	switch {
	case s.MaxSets < 0 || s.MaxSets > 1<<30:
		return cannotStart("--max-sets is %d; give at least 1", s.MaxSets)
	case s.DriftWindow < 0 || s.DriftWindow > 1<<30:
		return cannotStart("--drift-window is %d; give a number of rows, or 0 for none", s.DriftWindow)
	case s.Grace < 0:
		return cannotStart("--grace is no number of seconds, 0 or more")
	case s.Watch < 0:
		return cannotStart("--watch is no number of seconds, 0 or more")
	case s.StreamIdle <= 0:
		return cannotStart("--stream-idle is no number of seconds above 0")
	}
	switch s.Reflection {
	case "", ReflectionAuto, ReflectionOn, ReflectionOff:
	default:
		return cannotStart("--reflection is %q; give auto, on or off", s.Reflection)
	}
	if s.Feedback != "" && s.Metrics == "" {
		return cannotStart("--feedback is shown on the page of --metrics; add --metrics HOST:PORT")
	}
	for flag, address := range map[string]string{"--listen": s.Listen, "--metrics": s.Metrics} {
		if address == "" {
			continue
		}
		if _, _, err := splitAddress(flag, address); err != nil {
			return err
		}
	}
	return s.TLS.check(s.Listen)
}

// driftWindow is the number of rows that are kept: none where nobody would see them.
func (s Settings) driftWindow() int {
	if s.Metrics == "" {
		return 0
	}
	return s.DriftWindow
}

// onlyTrusted says whether those who can call may also ask for a reload: the addresses are unix sockets and loopback addresses, or
// clients have certificates (rule R6).
func (s Settings) onlyTrusted(addresses []net.Addr) bool {
	for _, address := range addresses {
		tcp, isTCP := address.(*net.TCPAddr)
		if isTCP && !tcp.IP.IsLoopback() && !s.TLS.mutual() {
			return false
		}
	}
	return true
}
