package server

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/encoding/protojson"

	pb "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

var (
	marksDesc     = describeState("dwcp_feedback_marks", "Alarms marked true and false, and faults without an alarm.", "verdict")
	precisionDesc = describeState("dwcp_feedback_precision", "Share of marked alarms that were right.")
	marksTimeDesc = describeState("dwcp_feedback_updated_timestamp_seconds", "When the marks were last summed up.")
)

// feedbackFile publishes what operators said of alarms, from a file that `dwcp feedback` writes (rule M5). The file is read anew when
// somebody looks and it has changed; one that cannot be used gives no series, and is logged once.
type feedbackFile struct {
	path string
	log  *slog.Logger

	mu      sync.Mutex
	seen    os.FileInfo
	missing bool
	summary *pb.FeedbackSummary
	updated time.Time
}

// Describe is part of prometheus.Collector.
func (f *feedbackFile) Describe(to chan<- *prometheus.Desc) {
	to <- marksDesc
	to <- precisionDesc
	to <- marksTimeDesc
}

// Collect is part of prometheus.Collector.
func (f *feedbackFile) Collect(to chan<- prometheus.Metric) {
	f.mu.Lock()
	f.look()
	summary, updated := f.summary, f.updated
	f.mu.Unlock()
	if summary == nil {
		return
	}
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	right, wrong := float64(summary.TrueAlarms), float64(summary.FalseAlarms)
	gauge(marksDesc, right, "true")
	gauge(marksDesc, wrong, "false")
	gauge(marksDesc, float64(summary.MissedFaults), "missed")
	if right+wrong > 0 {
		gauge(precisionDesc, right/(right+wrong))
	}
	gauge(marksTimeDesc, unixSeconds(updated))
}

func (f *feedbackFile) look() {
	info, err := os.Stat(f.path)
	switch {
	case err != nil && f.missing:
		return
	case err == nil && f.seen != nil && os.SameFile(info, f.seen) && info.Size() == f.seen.Size() && info.ModTime().Equal(f.seen.ModTime()):
		return
	}
	f.seen, f.missing, f.summary = info, err != nil, nil
	if err == nil {
		f.summary, f.updated, err = readFeedback(f.path)
	}
	if err != nil {
		f.log.Warn("no feedback is shown until the file changes", "file", filepath.Base(f.path), "error", plainReason(err))
	}
}

// readFeedback reads a FeedbackSummary and when it was written.
func readFeedback(path string) (*pb.FeedbackSummary, time.Time, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, time.Time{}, err
	}
	summary := &pb.FeedbackSummary{}
	if err := protojson.Unmarshal(data, summary); err != nil {
		return nil, time.Time{}, fmt.Errorf("it is no FeedbackSummary: %w", err)
	}
	if summary.SchemaVersion != 1 {
		return nil, time.Time{}, fmt.Errorf("its schema_version is %d; this program reads 1", summary.SchemaVersion)
	}
	updated, err := time.Parse(time.RFC3339Nano, summary.Updated)
	if err != nil {
		return nil, time.Time{}, errors.New("`updated` is no time")
	}
	return summary, updated, nil
}
