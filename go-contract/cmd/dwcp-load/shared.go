package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	anomaly "dwcp.internal/anomaly"
)

// sharedStream is the value of --call for them.
const sharedStream = "shared-stream"

// sharedStreams are streams of the Go client that many callers use: what waits while the server is busy travels in one request.
type sharedStreams struct {
	sidecars []*anomaly.Sidecar
	streams  []*anomaly.Stream
	rows     [][]float64
}

// openShared opens the streams, each on a connection of its own.
func openShared(ctx context.Context, s settings) (*sharedStreams, error) {
	rows, err := readRows(s.rowsFile, s.width)
	if err != nil {
		return nil, err
	}
	detector, err := anomaly.ParseDetector(s.detector)
	if err != nil {
		return nil, err
	}
	explain, ok := map[string]anomaly.Explain{
		"alarms": anomaly.ExplainAlarms, "always": anomaly.ExplainAlways, "never": anomaly.ExplainNever,
	}[strings.ToLower(s.explain)]
	if !ok {
		return nil, fmt.Errorf("--explain is %q; write alarms, always or never", s.explain)
	}
	shared := &sharedStreams{rows: rows}
	for i := range s.streams {
		sidecar, err := anomaly.DialSidecar(ctx, s.addresses[i%len(s.addresses)], anomaly.WithDeadline(drainTime))
		if err != nil {
			shared.close()
			return nil, err
		}
		shared.sidecars = append(shared.sidecars, sidecar)
		stream, err := sidecar.OpenStream(ctx, anomaly.StreamSettings{Detectors: []anomaly.Detector{detector}, Explain: explain})
		if err != nil {
			shared.close()
			return nil, err
		}
		shared.streams = append(shared.streams, stream)
	}
	return shared, nil
}

// runSharer scores single samples one after another, on a stream that other callers use too.
func (shared *sharedStreams) runSharer(ctx context.Context, s settings, number int, stages *clock, t *tally) {
	stream := shared.streams[number%len(shared.streams)]
	series := fmt.Sprintf("caller-%d", number%max(s.series, s.concurrency))
	for i := number; !stages.over() && ctx.Err() == nil; i++ {
		start := time.Now()
		results, err := stream.Score(ctx, anomaly.StreamSample{Series: series, Values: shared.rows[i%len(shared.rows)]})
		if err == nil && results[0].Verdicts[0].Err != nil {
			err = results[0].Verdicts[0].Err
		}
		if stages.measuring() {
			t.record(time.Since(start), err)
		}
	}
}

func (shared *sharedStreams) close() {
	for _, stream := range shared.streams {
		stream.Close()
	}
	for _, sidecar := range shared.sidecars {
		sidecar.Close()
	}
}
