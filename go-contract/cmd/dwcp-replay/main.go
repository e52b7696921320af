// Command dwcp-replay scores a recorded series twice, with a running sidecar and natively, and compares every bit.
//
// It writes one JSON line for each sample and detector, for programs that evaluate the alarms:
//
//	go run ./cmd/dwcp-replay --models ../models --address 127.0.0.1:50051 --data test.csv > scores.jsonl
//
// Exit status 1 when something could not be scored, 3 when a score differed.
package main

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"time"

	anomaly "dwcp.internal/anomaly"
)

// gapFactor times the cadence is a gap: a window does not cross it.
const gapFactor = 1.5

// line is one line of output.
type line struct {
	Timestamp  string  `json:"timestamp"`
	Detector   string  `json:"detector"`
	Score      float64 `json:"score"`
	IsAnomaly  bool    `json:"is_anomaly"`
	Level      string  `json:"level"`
	PValue     float64 `json:"p_value"`
	TopFeature string  `json:"top_feature,omitempty"`
	SidecarUS  float64 `json:"sidecar_us"`
	NativeUS   float64 `json:"native_us"`
	Equal      bool    `json:"equal"`
}

func main() {
	models := flag.String("models", "../models", "folder of the model set")
	address := flag.String("address", "127.0.0.1:50051", "address of the sidecar, host:port or unix:/path")
	data := flag.String("data", "", "CSV file with a timestamp and the metrics, by name")
	flag.Parse()
	different, err := replay(*models, *address, *data, os.Stdout)
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "dwcp-replay:", err)
		os.Exit(1)
	case different > 0:
		fmt.Fprintf(os.Stderr, "dwcp-replay: %d scores differ between sidecar and native scorer\n", different)
		os.Exit(3)
	}
}

// replay scores every row of a CSV file and returns how many answers differed.
func replay(models, address, data string, out io.Writer) (int, error) {
	native, err := anomaly.OpenModelSet(models)
	if err != nil {
		return 0, err
	}
	defer native.Close()
	ctx := context.Background()
	// The same set on both sides, or there is nothing to compare.
	sidecar, err := anomaly.DialSidecar(ctx, address, anomaly.WithModelSetID(native.ID()), anomaly.WithDeadline(5*time.Second))
	if err != nil {
		return 0, err
	}
	defer sidecar.Close()

	buffered := bufio.NewWriter(out)
	defer buffered.Flush()
	encoder := json.NewEncoder(buffered)
	detectors := native.Detectors()
	meta := native.Metadata(detectors[0])
	longest := 1
	for _, d := range detectors {
		longest = max(longest, int(native.Metadata(d).GetTimesteps()))
	}
	var window [][]float64
	var last time.Time
	var ours, theirs anomaly.Verdict
	different := 0
	err = readCSV(data, meta.GetFeatureNames(), func(timestamp string, at time.Time, sample []float64) error {
		if cadence := meta.GetCadenceSeconds(); cadence > 0 && !last.IsZero() && at.Sub(last).Seconds() > gapFactor*cadence {
			window = window[:0]
		}
		last = at
		if window = append(window, sample); len(window) > longest {
			window = window[1:]
		}
		for _, d := range detectors {
			steps := max(1, int(native.Metadata(d).GetTimesteps()))
			if len(window) < steps {
				continue
			}
			request := anomaly.Request{Detector: d, Samples: window[len(window)-steps:], Explain: anomaly.ExplainAlways}
			start := time.Now()
			if err := sidecar.Score(ctx, request, &theirs); err != nil {
				return fmt.Errorf("%s %s: sidecar: %w", timestamp, d, err)
			}
			between := time.Now()
			if err := native.Score(ctx, request, &ours); err != nil {
				return fmt.Errorf("%s %s: native: %w", timestamp, d, err)
			}
			end := time.Now()
			equal := same(&ours, &theirs)
			if !equal {
				different++
			}
			if err := encoder.Encode(line{
				Timestamp: timestamp, Detector: d.String(), Score: float64(ours.Score), IsAnomaly: ours.IsAnomaly, Level: ours.Level.String(),
				PValue: ours.PValue, TopFeature: ours.TopFeature, SidecarUS: micro(between.Sub(start)), NativeUS: micro(end.Sub(between)), Equal: equal,
			}); err != nil {
				return err
			}
		}
		return nil
	})
	return different, err
}

func micro(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

// same reports whether two verdicts are equal in every bit.
func same(a, b *anomaly.Verdict) bool {
	return math.Float32bits(a.Score) == math.Float32bits(b.Score) && a.IsAnomaly == b.IsAnomaly && a.Level == b.Level &&
		a.PValue == b.PValue && a.TopFeature == b.TopFeature && a.DepthSum == b.DepthSum &&
		slices.Equal(a.Contributions, b.Contributions) && slices.Equal(a.Expected, b.Expected) && slices.Equal(a.Members, b.Members)
}

// readCSV calls row for every row, with the values of the named columns in the order of names.
func readCSV(path string, names []string, row func(timestamp string, at time.Time, sample []float64) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	reader := csv.NewReader(bufio.NewReader(file))
	header, err := reader.Read()
	if err != nil {
		return fmt.Errorf("%s: no header: %w", path, err)
	}
	columns := make([]int, len(names))
	for i, name := range names {
		if columns[i] = slices.Index(header, name); columns[i] < 0 {
			return fmt.Errorf("%s: column %q is missing; there are %v", path, name, header)
		}
	}
	time0 := slices.Index(header, "timestamp")
	if time0 < 0 {
		return fmt.Errorf("%s: column \"timestamp\" is missing; there are %v", path, header)
	}
	for {
		record, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		number, _ := reader.FieldPos(0)
		at, err := time.Parse(time.RFC3339Nano, record[time0])
		if err != nil {
			return fmt.Errorf("%s line %d: timestamp: %w", path, number, err)
		}
		sample := make([]float64, len(names))
		for i, column := range columns {
			if sample[i], err = strconv.ParseFloat(record[column], 64); err != nil {
				return fmt.Errorf("%s line %d: %s: %w", path, number, names[i], err)
			}
		}
		if err := row(record[time0], at, sample); err != nil {
			return err
		}
	}
}
