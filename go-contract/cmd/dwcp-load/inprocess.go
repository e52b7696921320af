package main

import (
	"context"
	"slices"
	"sync"
	"time"

	anomaly "dwcp.internal/anomaly"
)

// runInProcess scores batches with the model set itself, one thread per caller: what a server could reach if calls cost nothing.
func runInProcess(s settings) (*result, error) {
	set, err := anomaly.OpenModelSet(s.inProcess)
	if err != nil {
		return nil, err
	}
	defer set.Close()
	detector, err := anomaly.ParseDetector(s.detector)
	if err != nil {
		return nil, err
	}
	rows, err := readRows(s.rowsFile, s.width)
	if err != nil {
		return nil, err
	}
	request := anomaly.BatchRequest{Detector: detector, Explain: anomaly.ExplainAlarms}
	for i := range s.rows {
		request.Rows = append(request.Rows, rows[i%len(rows)]...)
	}
	var first anomaly.BatchVerdict
	if err := set.ScoreBatch(context.Background(), request, &first); err != nil {
		return nil, err
	}
	tallies := make([]tally, s.concurrency)
	stages := &clock{}
	var running sync.WaitGroup
	for i := range tallies {
		running.Go(func() {
			var verdict anomaly.BatchVerdict
			own := request
			own.Rows = slices.Clone(request.Rows)
			for !stages.over() {
				start := time.Now()
				err := set.ScoreBatch(context.Background(), own, &verdict)
				if stages.measuring() {
					tallies[i].record(time.Since(start), err)
				}
			}
		})
	}
	out := &result{Call: "in-process", Rows: s.rows, Errors: map[string]uint64{}, FirstScore: &first.Scores[0]}
	out.measure(s, stages)
	running.Wait()
	out.add(tallies)
	return out, nil
}
