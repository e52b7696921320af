// Command contract-score is the executor of the parity tests: it answers JSON lines on the standard input with JSON lines on the
// standard output, in order (rule E5), with any backend of the package.
//
//	go run ./cmd/contract-score --models ../models/reference/v1 < requests.jsonl > answers.jsonl
//	go run ./cmd/contract-score --models ../models/reference/v1 --golden
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	anomaly "dwcp.internal/anomaly"
	"dwcp.internal/anomaly/internal/keyfiles"
)

type settings struct {
	models, backend, address string
	batch, threads           int
	golden                   bool
	deadline                 time.Duration
	publicKeys               keyfiles.Files

	// set is nil for a sidecar without --models.
	set    *anomaly.ModelSet
	scorer anomaly.Scorer
}

func main() {
	os.Exit(command(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// command is main without the process: 0 for success, 1 for a refusal, 2 for wrong usage.
func command(ctx context.Context, args []string, in io.Reader, out, messages io.Writer) int {
	s, err := parseFlags(args, messages)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(messages, "contract-score:", err)
		return 2
	}
	if err := s.open(ctx); err != nil {
		return s.refused(err, messages)
	}
	defer s.scorer.Close()
	if s.golden {
		return s.runGolden(ctx, out)
	}
	if err := run(ctx, in, out, s); err != nil {
		fmt.Fprintln(messages, "contract-score:", err)
		return 1
	}
	return 0
}

func parseFlags(args []string, messages io.Writer) (*settings, error) {
	s := &settings{}
	flags := flag.NewFlagSet("contract-score", flag.ContinueOnError)
	flags.SetOutput(messages)
	flags.StringVar(&s.models, "models", "", "folder of the model set; with a sidecar it may be left out, else the sidecar must have the same set open")
	s.publicKeys.Add(flags)
	flags.StringVar(&s.backend, "backend", "native", "native, onnxruntime or sidecar")
	flags.StringVar(&s.address, "address", "", "address of the sidecar, for example 127.0.0.1:50051 or unix:///run/dwcp.sock")
	flags.IntVar(&s.batch, "batch", 1, "number of requests that are scored at once through the batch API")
	flags.IntVar(&s.threads, "threads", runtime.GOMAXPROCS(0), "number of threads that parse and score")
	flags.BoolVar(&s.golden, "golden", false, "run the golden vectors of the model set instead of reading requests")
	flags.DurationVar(&s.deadline, "deadline", 30*time.Second, "how long a call to the sidecar may take")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	switch {
	case flags.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case s.batch < 1 || s.batch > anomaly.MaxBatchItems:
		return nil, fmt.Errorf("--batch %d is not between 1 and %d", s.batch, anomaly.MaxBatchItems)
	case s.threads < 1:
		return nil, fmt.Errorf("--threads %d is not at least 1", s.threads)
	case s.backend != "native" && s.backend != "onnxruntime" && s.backend != "sidecar":
		return nil, fmt.Errorf("--backend %q is not native, onnxruntime or sidecar", s.backend)
	case s.backend == "sidecar" && s.address == "":
		return nil, errors.New("--backend sidecar needs --address")
	case s.models == "" && (s.backend != "sidecar" || s.golden):
		return nil, errors.New("--models is missing")
	}
	return s, nil
}

// open opens the backend. With a sidecar the set of --models is opened natively and pinned.
func (s *settings) open(ctx context.Context) (err error) {
	if s.models != "" {
		backend := anomaly.Native
		if s.backend == "onnxruntime" {
			backend = anomaly.ONNXRuntime
		}
		options, err := s.publicKeys.Options()
		if err != nil {
			return err
		}
		if s.set, err = anomaly.OpenModelSet(s.models, append(options, anomaly.WithBackend(backend))...); err != nil {
			return err
		}
		s.scorer = s.set
	}
	if s.backend == "sidecar" {
		options := []anomaly.SidecarOption{anomaly.WithDeadline(s.deadline)}
		if s.set != nil {
			options = append(options, anomaly.WithModelSetID(s.set.ID()))
		}
		s.scorer, err = anomaly.DialSidecar(ctx, s.address, options...)
	}
	return err
}

// refused says why, and what to do. With --golden every failed case is shown.
func (s *settings) refused(err error, messages io.Writer) int {
	var report *anomaly.GoldenReport
	if s.golden && errors.As(err, &report) {
		printFailures(messages, report)
	}
	fmt.Fprintf(messages, "contract-score: %v\n%s\n", err, anomaly.AsError(err).Code.Remedy())
	return 1
}

// runGolden runs the set's golden vectors through the backend and prints a count for each detector.
func (s *settings) runGolden(ctx context.Context, out io.Writer) int {
	detectors := s.set.Detectors()
	status := 0
	if len(detectors) == 0 {
		fmt.Fprintln(out, "the model set has no golden vectors")
		status = 1
	}
	for _, d := range detectors {
		report := s.set.Golden(ctx, d, s.scorer)
		fmt.Fprintln(out, report.Summary())
		printFailures(out, report)
		if report.Err() != nil {
			status = 1
		}
	}
	return status
}

func printFailures(to io.Writer, report *anomaly.GoldenReport) {
	for _, f := range report.Failures {
		fmt.Fprintf(to, "FAIL %s %s\n  wanted %s\n  got    %s\n  input  %s\n", report.Detector, f.Case, f.Wanted, f.Got, f.Input)
	}
}
