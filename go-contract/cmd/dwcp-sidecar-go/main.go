// Command dwcp-sidecar-go answers gRPC calls with one model set: the service of the Python sidecar, with the native scorers.
//
//	dwcp-sidecar-go --models models/reference/v1
//	dwcp-sidecar-go --models models --unix /run/dwcp/score.sock
//
// It prints one line when it answers: `ready ADDRESS... model_set=ID`. At SIGTERM or SIGINT health becomes NOT_SERVING, calls in
// flight finish, the exit status is 0; a second signal ends them. There is no TLS: beyond this machine, put a proxy in front.
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
	"dwcp.internal/anomaly/internal/server"
)

const usage = `Answers gRPC calls with one model set.

Examples:
  dwcp-sidecar-go --models models/reference/v1
  dwcp-sidecar-go --models models --unix /run/dwcp/score.sock
  dwcp-sidecar-go --models models --listen 127.0.0.1:0 --unix /run/dwcp/score.sock --ready-file /run/dwcp/ready

It prints one line when it answers: ready ADDRESS... model_set=ID. At SIGTERM or SIGINT health becomes NOT_SERVING,
calls in flight finish, the exit status is 0; a second signal ends them.
There is no TLS: beyond this machine, put a proxy in front.

Flags:
`

func main() {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	os.Exit(command(os.Args[1:], signals, os.Stdout, os.Stderr))
}

// command is main without the process: 0 for success, 1 for a refusal, 2 for wrong usage.
func command(args []string, signals <-chan os.Signal, out, messages io.Writer) int {
	settings, err := parseFlags(args, out)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(messages, "dwcp-sidecar-go: error:", err)
		return 2
	}
	err = server.Run(settings, signals, out, slog.New(slog.NewTextHandler(messages, nil)))
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

func parseFlags(args []string, out io.Writer) (s server.Settings, err error) {
	flags := flag.NewFlagSet("dwcp-sidecar-go", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Usage = func() {}
	var grace float64
	flags.StringVar(&s.Models, "models", "", "`folder` with manifest.json, for example models/reference/v1")
	flags.StringVar(&s.Listen, "listen", "", "TCP address `host:port`; port 0 takes a free one (default "+server.DefaultListen+", or no TCP when --unix is given)")
	flags.StringVar(&s.Unix, "unix", "", "`path` of a unix socket, mode 0660; --listen adds TCP to it")
	flags.Float64Var(&grace, "grace", 5, "`seconds` for calls in flight at the end")
	flags.StringVar(&s.ReadyFile, "ready-file", "", "`path` of a file that is written when the server answers, removed at the end")
	flags.IntVar(&s.MaxInFlight, "max-in-flight", 1024, "requests handled at a time; one more is refused with RESOURCE_EXHAUSTED")
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
	}
	if s.Listen == "" && s.Unix == "" {
		s.Listen = server.DefaultListen
	}
	s.Grace = seconds(grace)
	return s, err
}

// seconds is a duration; what is none is negative, which the server refuses.
func seconds(s float64) time.Duration {
	if !(s >= 0 && s < math.MaxInt64/float64(time.Second)) {
		return -1
	}
	return time.Duration(s * float64(time.Second))
}
