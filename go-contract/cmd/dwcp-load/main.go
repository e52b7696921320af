// Command dwcp-load measures a gRPC server: it asks as fast as it gets answers and prints one JSON object with rates, latencies,
// errors and its own CPU time.
//
//	dwcp-load --address 127.0.0.1:50051 --call score --concurrency 64 --connections 8
//	dwcp-load --address 127.0.0.1:50051 --call stream --connections 8 --streams 8 --outstanding 64
//	dwcp-load --address 127.0.0.1:8001 --call infer --model forest --input samples --rows 256 --concurrency 4
//	dwcp-load --echo 127.0.0.1:50052
//	dwcp-load --in-process models/reference/v1 --rows 256
//
// The loop is closed: a caller sends its next request when it has the answer to the last one. Requests are marshalled once, before
// the clock starts, and answers are not unmarshalled, except the first: its score is part of the output, so that whoever compares
// servers can see that all of them computed the same.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"
)

const usage = `Measures a gRPC server and prints one JSON object.

Examples:
  dwcp-load --address 127.0.0.1:50051 --call score --concurrency 64 --connections 8
  dwcp-load --address 127.0.0.1:50051 --call stream --connections 8 --streams 8 --outstanding 64
  dwcp-load --address 127.0.0.1:50051 --call shared-stream --streams 8 --concurrency 64
  dwcp-load --address 127.0.0.1:8001 --call infer --model forest --input samples --rows 256 --concurrency 4
  dwcp-load --address 127.0.0.1:50051 --call score --duration 0     # waits for the first answer, nothing else
  dwcp-load --echo 127.0.0.1:50052                                  # a server that sends every message back
  dwcp-load --in-process models/reference/v1 --rows 256             # the Go scorer without a server

Flags:
`

// settings are the flags.
type settings struct {
	addresses   []string
	call        string
	rows        int
	rowsFile    string
	width       int
	detector    string
	explain     string
	concurrency int
	connections int
	streams     int
	outstanding int
	series      int
	seriesFile  string
	warmUp      time.Duration
	duration    time.Duration
	wait        time.Duration
	unchecked   bool
	infer       inferSettings
	echo        string
	inProcess   string
}

func main() {
	// The client's garbage collector would take CPU time from the server that shares its cores; its heap is a few MB.
	debug.SetGCPercent(800)
	os.Exit(command(os.Args[1:], os.Stdout, os.Stderr))
}

// command is main without the process: 0 for a measurement, 1 when the server did not answer, 2 for wrong usage.
func command(args []string, out, messages io.Writer) int {
	s, err := parseFlags(args, out)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(messages, "dwcp-load: error:", err)
		return 2
	}
	var result any
	switch {
	case s.echo != "":
		err = runEcho(s.echo, out)
	case s.inProcess != "":
		result, err = runInProcess(s)
	default:
		result, err = runLoad(s)
	}
	if err != nil {
		fmt.Fprintln(messages, "dwcp-load: error:", err)
		return 1
	}
	if result != nil {
		err = json.NewEncoder(out).Encode(result)
	}
	if err != nil {
		fmt.Fprintln(messages, "dwcp-load: error:", err)
		return 1
	}
	return 0
}

func parseFlags(args []string, out io.Writer) (s settings, err error) {
	flags := flag.NewFlagSet("dwcp-load", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Usage = func() {}
	flags.Func("address", "`host:port` or unix:PATH of a server; several, separated by commas, get the connections in turn", func(value string) error {
		s.addresses = append(s.addresses, strings.Split(value, ",")...)
		return nil
	})
	flags.StringVar(&s.call, "call", "score", "score, batch, stream (own protocol), shared-stream (callers share streams of the Go client), or infer (Open Inference Protocol)")
	flags.IntVar(&s.rows, "rows", 1, "rows in a call: samples of a score, rows of a batch or of a tensor, samples in one message of a stream")
	flags.StringVar(&s.rowsFile, "rows-file", "", "`path` of rows as little-endian float64, used in turn (default: one typical row)")
	flags.IntVar(&s.width, "width", len(typicalRow), "values in a row of --rows-file")
	flags.StringVar(&s.detector, "detector", "isolation_forest", "detector, for example lstm_autoencoder")
	flags.StringVar(&s.explain, "explain", "alarms", "alarms, always or never")
	flags.IntVar(&s.concurrency, "concurrency", 1, "callers, each with one call at a time; threads of --in-process; not for streams")
	flags.IntVar(&s.connections, "connections", 1, "TCP connections, used in turn")
	flags.IntVar(&s.streams, "streams", 1, "streams")
	flags.IntVar(&s.outstanding, "outstanding", 1, "samples on their way at a time, in all streams together")
	flags.IntVar(&s.series, "series", 1, "series in a stream")
	flags.StringVar(&s.seriesFile, "series-file", "", "score: `path` of names of series, one a line: a request for each, in turn, at a sidecar with a fleet")
	flags.DurationVar(&s.warmUp, "warm-up", 300*time.Millisecond, "time before measuring")
	flags.DurationVar(&s.duration, "duration", time.Second, "time to measure; 0: the first answer only")
	flags.DurationVar(&s.wait, "wait", 5*time.Second, "how long to wait for the first answer")
	flags.BoolVar(&s.unchecked, "unchecked", false, "do not read a score from the first answer, for example with an echo server")
	flags.StringVar(&s.infer.model, "model", "isolation_forest", "infer: name of the model")
	flags.StringVar(&s.infer.input, "input", "samples", "infer: name of the input")
	flags.StringVar(&s.infer.datatype, "datatype", "FP64", "infer: FP64 or FP32")
	flags.StringVar(&s.infer.shape, "shape", "", "infer: shape of the input, -1 for the number of rows (default -1,WIDTH)")
	flags.StringVar(&s.infer.output, "output", "score", "infer: name of the output with the score")
	flags.StringVar(&s.infer.ask, "ask", "score,is_anomaly", "infer: outputs asked for; empty for all")
	flags.StringVar(&s.echo, "echo", "", "serve `host:port`: send every message back, until SIGTERM")
	flags.StringVar(&s.inProcess, "in-process", "", "score --rows rows at a time with the model set in `folder`, without a server")
	err = flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(out, usage)
		flags.SetOutput(out)
		flags.PrintDefaults()
		return s, err
	}
	if err == nil && flags.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if err == nil {
		err = s.check()
	}
	return s, err
}

// maxOutstanding keeps the answers that are on their way to a stream's caller below its flow-control window (see runStream).
const maxOutstanding = 16384

// check refuses what cannot be measured.
func (s *settings) check() error {
	switch {
	case s.echo == "" && s.inProcess == "" && len(s.addresses) == 0:
		return errors.New("--address is missing, for example --address 127.0.0.1:50051")
	case min(s.rows, s.width, s.concurrency, s.connections, s.streams, s.outstanding, s.series) < 1:
		return errors.New("--rows, --width, --concurrency, --connections, --streams, --outstanding and --series are at least 1")
	case s.outstanding > maxOutstanding:
		return fmt.Errorf("--outstanding is %d; at most %d", s.outstanding, maxOutstanding)
	case min(s.warmUp, s.duration, s.wait) < 0:
		return errors.New("--warm-up, --duration and --wait are not negative")
	}
	if s.call == "stream" && s.outstanding < s.streams*s.rows {
		return fmt.Errorf("--outstanding is %d; %d streams with %d samples a message need at least %d", s.outstanding, s.streams, s.rows, s.streams*s.rows)
	}
	return nil
}

// stopSignal is closed at SIGTERM or SIGINT.
func stopSignal() <-chan os.Signal {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	return signals
}
