// Command dwcp-score scores a CSV file of metrics with a model set and prints its alarms as a table.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	anomaly "dwcp.internal/anomaly"
	"dwcp.internal/anomaly/internal/keyfiles"
)

const usage = `dwcp-score scores a CSV file of metrics with a model set and prints its alarms.

Usage:
  dwcp-score --models DIR [--public-key FILE] [--detector NAME] [--all] FILE.csv

The first line of the file names its columns. The columns of the model's features are found by name, in any order; others are
ignored, except "timestamp", which is shown. FILE.csv may be - for the standard input.

Examples:
  dwcp-score --models models/reference/v1 metrics.csv
  dwcp-score --models models --detector lstm_autoencoder metrics.csv
  dwcp-score --models models --detector ensemble metrics.csv
  cat metrics.csv | dwcp-score --models models --all -

Flags:
`

func main() {
	os.Exit(command(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

type settings struct {
	models, detector, file string
	all                    bool
	publicKeys             keyfiles.Files
}

// command is main without the process: 0 for success, 1 for a refusal, 2 for wrong usage.
func command(ctx context.Context, args []string, in io.Reader, out, messages io.Writer) int {
	s, err := parseFlags(args, out, messages)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintf(messages, "dwcp-score: %v\nSee dwcp-score --help.\n", err)
		return 2
	}
	if err := score(ctx, s, in, out); err != nil {
		fmt.Fprintf(messages, "dwcp-score: %v\n", err)
		var refusal *anomaly.Error
		if errors.As(err, &refusal) {
			fmt.Fprintln(messages, refusal.Code.Remedy())
		}
		return 1
	}
	return 0
}

func parseFlags(args []string, out, messages io.Writer) (*settings, error) {
	s := &settings{}
	flags := flag.NewFlagSet("dwcp-score", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&s.models, "models", "", "folder of the model set")
	flags.StringVar(&s.detector, "detector", "", "detector, for example isolation_forest (default: every detector of the set)")
	s.publicKeys.Add(flags)
	flags.BoolVar(&s.all, "all", false, "print every scored row, not only the alarms")
	flags.Usage = func() {}
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(out, usage)
		flags.SetOutput(out)
		flags.PrintDefaults()
		return nil, err
	case err != nil:
		return nil, err
	case s.models == "":
		return nil, errors.New("--models is missing")
	case flags.NArg() != 1:
		return nil, errors.New("give one CSV file, or - for the standard input")
	}
	s.file = flags.Arg(0)
	return s, nil
}

// score reads the file once for all detectors and prints a table for each.
func score(ctx context.Context, s *settings, in io.Reader, out io.Writer) error {
	options, err := s.publicKeys.Options()
	if err != nil {
		return err
	}
	set, err := anomaly.OpenModelSet(s.models, options...)
	if err != nil {
		return err
	}
	defer set.Close()
	detectors := set.Detectors()
	if s.detector != "" {
		d, err := anomaly.ParseDetector(s.detector)
		if err != nil {
			return err
		}
		if set.Metadata(d) == nil {
			return fmt.Errorf("the model set in %s cannot score %s", s.models, d)
		}
		detectors = []anomaly.Detector{d}
	}
	if len(detectors) == 0 {
		return fmt.Errorf("the model set in %s has nothing that can be scored", s.models)
	}
	if s.file != "-" {
		file, err := os.Open(s.file)
		if err != nil {
			return err
		}
		defer file.Close()
		in = file
	}
	rows, err := readTable(in, set.Metadata(detectors[0]).GetFeatureNames())
	if err != nil {
		return fmt.Errorf("%s: %w", s.file, err)
	}
	for _, d := range detectors {
		if err := printDetector(ctx, set, d, rows, s.all, out); err != nil {
			return err
		}
	}
	return nil
}

// seriesChunk keeps a call within the limits of a batch (rule W4).
const seriesChunk = 8192

// printDetector scores the rows as one series and prints the alarms.
func printDetector(ctx context.Context, set *anomaly.ModelSet, d anomaly.Detector, rows *table, all bool, out io.Writer) error {
	names := set.Metadata(d).GetFeatureNames()
	window := anomaly.WindowLength(set, d)
	fmt.Fprintf(out, "%s, model set %.12s, threshold %.6g\n", d, set.ID(), set.Metadata(d).GetThreshold())
	if rows.count < window {
		fmt.Fprintf(out, "nothing scored: %d rows are fewer than the window of %d\n\n", rows.count, window)
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "line\ttimestamp\tlevel\tscore\tp-value\tmetric\tvalue\texpected")
	var batch anomaly.BatchVerdict
	var v anomaly.Verdict
	scored, alarms := 0, 0
	// Chunks overlap by window-1 rows, so that every row from the first full window on is scored once.
	for start := 0; start+window <= rows.count; start += seriesChunk {
		end := min(start+seriesChunk+window-1, rows.count)
		request := anomaly.BatchRequest{
			Detector: d, Rows: rows.values[start*len(names) : end*len(names)], Layout: anomaly.BatchSeries, Explain: anomaly.ExplainAlways,
		}
		if err := set.ScoreBatch(ctx, request, &batch); err != nil {
			return fmt.Errorf("from line %d on: %w", rows.lines[start], err)
		}
		for i := range batch.Scores {
			scored++
			batch.Item(i, len(names), &v)
			if v.IsAnomaly {
				alarms++
			} else if !all {
				continue
			}
			printRow(w, rows, start+i+window-1, names, &v)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "%d alarms in %d scored rows (%.2f %%)\n\n", alarms, scored, 100*float64(alarms)/float64(scored))
	return err
}

func printRow(w io.Writer, rows *table, row int, names []string, v *anomaly.Verdict) {
	top := 0
	for j, c := range v.Contributions {
		if c > v.Contributions[top] {
			top = j
		}
	}
	fmt.Fprintf(w, "%d\t%s\t%s\t%.6g\t%.4f\t%s\t%.6g\t%.6g\n", rows.lines[row], rows.timestamps[row], v.Level, v.Score, v.PValue,
		names[top], rows.values[row*len(names)+top], v.Expected[top])
}
