// Command dwcp-sidecar-go answers gRPC calls with one model set, or with a fleet of them: the service of the Python sidecar, with the native scorers.
//
//	dwcp-sidecar-go --models models/reference/v1
//	dwcp-sidecar-go --models models --unix /run/dwcp/score.sock
//
// It prints one line when it answers: `ready ADDRESS... model_set=ID`. A new set in the folder takes the place of the one in use without
// a pause. At SIGTERM or SIGINT health becomes NOT_SERVING, streams end, calls in flight finish, the exit status is 0; a second signal
// ends them.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"os/signal"
	"syscall"
	"time"

	anomaly "dwcp.internal/anomaly"
	"dwcp.internal/anomaly/internal/keyfiles"
	"dwcp.internal/anomaly/internal/server"
)

const usage = `Answers gRPC calls with one model set, or with a fleet of them.

Examples:
  dwcp-sidecar-go --models models/reference/v1
  dwcp-sidecar-go --models models --unix /run/dwcp/score.sock
  dwcp-sidecar-go --models models --listen 127.0.0.1:0 --unix /run/dwcp/score.sock --ready-file /run/dwcp/ready
  dwcp-sidecar-go --models models --listen 0.0.0.0:50051 --tls-cert tls.crt --tls-key tls.key --tls-client-ca ca.crt
  dwcp-sidecar-go --models models --public-key signing-key.pub.pem
  dwcp-sidecar-go --models models/fleet --max-sets 500
  dwcp-sidecar-go --models models --metrics 127.0.0.1:9101 --log-format json

It prints one line when it answers: ready ADDRESS... model_set=ID. When the folder holds another model set, that is
checked and takes the place of the one in use without a pause; a bad one is refused and the one in use stays. At
SIGTERM or SIGINT health becomes NOT_SERVING, streams end, calls in flight finish, the exit status is 0; a second
signal ends them. At SIGHUP it looks for a new model set at once.

"dwcp-sidecar-go health --address ADDRESS" asks a running sidecar for its health.

Flags:
`

func main() {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt, syscall.SIGHUP)
	os.Exit(command(os.Args[1:], signals, os.Stdout, os.Stderr))
}

// command is main without the process: 0 for success, 1 for a refusal, 2 for wrong usage.
func command(args []string, signals <-chan os.Signal, out, messages io.Writer) int {
	if len(args) > 0 && args[0] == "health" {
		return healthCommand(args[1:], out, messages)
	}
	settings, err := parseFlags(args, out)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(messages, "dwcp-sidecar-go: error:", err)
		return 2
	}
	if settings.PublicKeys, err = settings.publicKeys.Read(); err != nil {
		fmt.Fprintln(messages, "dwcp-sidecar-go: error:", err)
		return 1
	}
	err = server.Run(settings.Settings, signals, out, settings.log(messages))
	var refusal *anomaly.Error
	switch {
	case errors.As(err, &refusal):
		fmt.Fprintf(messages, "dwcp-sidecar-go: error: %v. %s\n", err, refusal.Code.Remedy())
	case err != nil:
		fmt.Fprintln(messages, "dwcp-sidecar-go: error:", err)
	default:
		return 0
	}
	return 1
}

// settings are those of the server and of its log.
type settings struct {
	server.Settings
	logFormat  string
	publicKeys keyfiles.Files
}

func (s settings) log(to io.Writer) *slog.Logger {
	if s.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(to, nil))
	}
	return slog.New(slog.NewTextHandler(to, nil))
}

func parseFlags(args []string, out io.Writer) (s settings, err error) {
	flags := flag.NewFlagSet("dwcp-sidecar-go", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Usage = func() {}
	var grace, watch, idle float64
	var reflection string
	s.Limits = server.DefaultLimits()
	flags.StringVar(&s.Models, "models", "", "`folder` with manifest.json, for example models/reference/v1, or with fleet.json")
	s.publicKeys.Add(flags)
	flags.StringVar(&s.Listen, "listen", "", "TCP address `host:port`; port 0 takes a free one (default "+server.DefaultListen+", or no TCP when --unix is given)")
	flags.StringVar(&s.Unix, "unix", "", "`path` of a unix socket, mode 0660; --listen adds TCP to it")
	flags.Float64Var(&grace, "grace", 5, "`seconds` for calls in flight at the end")
	flags.StringVar(&s.ReadyFile, "ready-file", "", "`path` of a file that is written when the server answers, removed at the end")
	flags.IntVar(&s.MaxInFlight, "max-in-flight", s.MaxInFlight, "scoring calls handled at a time; one more is refused with RESOURCE_EXHAUSTED")
	flags.IntVar(&s.MaxStreams, "max-streams", s.MaxStreams, "open streams; one more is refused with RESOURCE_EXHAUSTED")
	flags.IntVar(&s.MaxSeries, "max-series", s.MaxSeries, "series of one stream; one more ends it with RESOURCE_EXHAUSTED")
	flags.IntVar(&s.MaxSets, "max-sets", anomaly.DefaultMaxSets, "model sets of a fleet that are kept open; the one not used for longest is closed first")
	flags.Float64Var(&idle, "stream-idle", s.StreamIdle.Seconds(), "`seconds` after which a stream on which nothing moves is ended")
	flags.Float64Var(&watch, "watch", 2, "`seconds` between looks at the folder for another model set; 0 never looks")
	flags.StringVar(&s.Metrics, "metrics", "", "`host:port` where Prometheus finds /metrics (default nowhere)")
	flags.StringVar(&s.Feedback, "feedback", "", "`file` that dwcp feedback writes: shows on --metrics how many alarms were right")
	flags.IntVar(&s.DriftWindow, "drift-window", server.DefaultDriftWindow, "last `rows` of each detector that are compared with its training rows for the metrics of drift; 0 compares none")
	flags.StringVar(&s.TLS.Cert, "tls-cert", "", "PEM `file` with the certificate for TCP; read again when it changes")
	flags.StringVar(&s.TLS.Key, "tls-key", "", "PEM `file` with its key")
	flags.StringVar(&s.TLS.ClientCA, "tls-client-ca", "", "PEM `file` with the authorities whose certificates clients must have (mutual TLS)")
	flags.StringVar(&reflection, "reflection", "auto", "whether the services can be listed: `auto`, on or off; auto is off with mutual TLS")
	flags.StringVar(&s.logFormat, "log-format", "text", "`text` or json")
	err = flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(out, usage)
		flags.SetOutput(out)
		flags.PrintDefaults()
	case err != nil:
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case s.Models == "":
		err = errors.New("--models is missing")
	case s.logFormat != "text" && s.logFormat != "json":
		err = fmt.Errorf("--log-format is %q; give text or json", s.logFormat)
	}
	if s.Listen == "" && s.Unix == "" {
		s.Listen = server.DefaultListen
	}
	s.Grace, s.Watch, s.StreamIdle, s.Reflection = seconds(grace), seconds(watch), seconds(idle), server.Reflection(reflection)
	return s, err
}

// seconds is a duration; what is none is negative, which the server refuses.
func seconds(s float64) time.Duration {
	if !(s >= 0 && s < math.MaxInt64/float64(time.Second)) {
		return -1
	}
	return time.Duration(s * float64(time.Second))
}
