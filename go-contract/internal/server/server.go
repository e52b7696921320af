package server

import (
	"context"
	"log/slog"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	anomaly "dwcp.internal/anomaly"
)

// DefaultListen is used when neither a TCP address nor a unix socket is given: loopback, never all interfaces.
const DefaultListen = "127.0.0.1:50051"

// MaxMessageBytes is the largest gRPC message: the largest batch (rule W4) and room for its other fields. A batch that is a little too
// large still reaches the check that answers BATCH_TOO_LARGE.
const MaxMessageBytes = anomaly.MaxBatchBytes + 1<<20

const fullName = "dwcp.anomaly.v1.ScoringService"

// HealthName is the name of a detector in grpc.health.v1. Every detector of the contract has one: SERVING when the model set can score
// it, else NOT_SERVING. The empty name and the service's name stand for the server as a whole.
func HealthName(d anomaly.Detector) string { return fullName + "/" + d.String() }

// Settings say how to serve.
type Settings struct {
	// Models is the folder of the model set.
	Models string
	// Listen is `host:port`, port 0 for any free one; empty for no TCP.
	Listen string
	// Unix is the path of a unix socket; empty for none.
	Unix string
	// Grace is what calls in flight get to finish when the server is told to stop.
	Grace time.Duration
	// ReadyFile is written when the server answers, with the line it prints; removed when it stops. Empty for none.
	ReadyFile string
	// MaxInFlight is the number of requests handled at a time; one more is RESOURCE_EXHAUSTED at once.
	MaxInFlight int
}

// check refuses settings that nothing can be done with, as a StartError.
func (s Settings) check() error {
	switch {
	case s.Listen == "" && s.Unix == "":
		return cannotStart("nothing to listen on; give --listen HOST:PORT or --unix PATH")
	case s.MaxInFlight < 1:
		return cannotStart("--max-in-flight is %d; give at least 1", s.MaxInFlight)
	case s.Grace < 0:
		return cannotStart("--grace is no number of seconds, 0 or more")
	case s.Listen != "":
		_, _, err := splitAddress(s.Listen)
		return err
	}
	return nil
}

// Server answers calls with one scorer.
type Server struct {
	// Addresses are what clients may pass to gRPC, `127.0.0.1:50051` or `unix:/run/dwcp.sock`; filled by Start.
	Addresses []string

	settings Settings
	grpc     *grpc.Server
	health   *health.Server
}

// options are those of gRPC. Measured with BenchmarkUnaryScore at 64 calls, as CPU time of the server for each: waiting workers save
// a sixth (every new goroutine grows its stack anew), shared write buffers a tenth of the rest; static windows and larger buffers
// save nothing.
func options(s *service) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(newCodec()),
		grpc.InTapHandle(s.tap),
		grpc.MaxRecvMsgSize(MaxMessageBytes),
		grpc.MaxSendMsgSize(MaxMessageBytes),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(5 * time.Second), // who says nothing for so long would hold up the end
		grpc.SharedWriteBuffer(true),
		grpc.NumStreamWorkers(64),
	}
}

// maxStreams is the number of calls that one connection may have open; a client waits with further ones. It keeps a single client
// from taking all of MaxInFlight.
const maxStreams = 256

// New makes a server that listens nowhere yet. What goes wrong inside a call is written to log.
func New(scorer anomaly.Scorer, settings Settings, log *slog.Logger) (*Server, error) {
	if err := settings.check(); err != nil {
		return nil, err
	}
	answers := &service{scorer: scorer, modelSet: describe(scorer), log: log, limit: int64(settings.MaxInFlight)}
	s := &Server{settings: settings, grpc: grpc.NewServer(options(answers)...), health: health.NewServer()}
	s.grpc.RegisterService(description(), answers)
	grpc_health_v1.RegisterHealthServer(s.grpc, s.health)
	reflection.Register(s.grpc)
	for _, name := range []string{"", fullName} {
		s.health.SetServingStatus(name, grpc_health_v1.HealthCheckResponse_SERVING)
	}
	for _, d := range anomaly.Detectors() {
		state := grpc_health_v1.HealthCheckResponse_NOT_SERVING
		if scorer.Metadata(d) != nil {
			state = grpc_health_v1.HealthCheckResponse_SERVING
		}
		s.health.SetServingStatus(HealthName(d), state)
	}
	return s, nil
}

// Start binds all addresses, then answers calls. When an address cannot be had, nothing listens.
func (s *Server) Start() error {
	var listeners []net.Listener
	for _, bind := range []struct {
		to     string
		listen func(string) (net.Listener, string, error)
	}{{s.settings.Listen, listenTCP}, {s.settings.Unix, listenUnix}} {
		if bind.to == "" {
			continue
		}
		listener, address, err := bind.listen(bind.to)
		if err != nil {
			for _, other := range listeners {
				other.Close()
			}
			return err
		}
		listeners, s.Addresses = append(listeners, listener), append(s.Addresses, address)
	}
	for _, listener := range listeners {
		go func() { _ = s.grpc.Serve(listener) }() // ends when the server stops
	}
	return nil
}

// Stop refuses new calls and waits until those in flight are finished, or ends them when ctx is done. Health becomes NOT_SERVING
// first.
func (s *Server) Stop(ctx context.Context) {
	s.health.Shutdown()
	finished := make(chan struct{})
	go func() {
		s.grpc.GracefulStop()
		close(finished)
	}()
	select {
	case <-finished:
		return
	case <-ctx.Done():
	}
	go s.grpc.Stop()
	select {
	case <-finished:
	case <-time.After(time.Second): // a scorer that does not look at its context is no reason to stay
	}
}
