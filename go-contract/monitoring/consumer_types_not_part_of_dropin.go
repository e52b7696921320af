package monitoring

// The types and helpers of the consumer's own anomaly_detector.go, as far as the drop-in files use them. This file only makes the
// two drop-in files compile and testable here. DO NOT copy it: the consumer has its own.

import (
	"context"
	"math"
	"slices"
	"time"
)

// MetricVector is one observation of the 7 network metrics.
type MetricVector struct {
	Timestamp   time.Time
	Bandwidth   float64
	Latency     float64
	PacketLoss  float64
	Jitter      float64
	CPUUsage    float64
	MemoryUsage float64
	ErrorRate   float64
}

// ToSlice gives the values in the order of the feature schema.
func (m *MetricVector) ToSlice() []float64 {
	return []float64{m.Bandwidth, m.Latency, m.PacketLoss, m.Jitter, m.CPUUsage, m.MemoryUsage, m.ErrorRate}
}

// SeverityLevel is how severe an anomaly is.
type SeverityLevel int

// The levels.
const (
	SeverityInfo SeverityLevel = iota
	SeverityWarning
	SeverityCritical
)

// Anomaly is an alarm.
type Anomaly struct {
	Timestamp   time.Time
	MetricName  string
	Value       float64
	Expected    float64
	Deviation   float64
	Severity    SeverityLevel
	Confidence  float64
	ModelType   string
	Description string
	Context     map[string]interface{}
}

// Detector is what the consumer's ensemble holds.
type Detector interface {
	Detect(ctx context.Context, metrics *MetricVector) (*Anomaly, error)
	Train(ctx context.Context, data []*MetricVector) error
	Name() string
}

func calculateSeverity(confidence, deviationPercent float64) SeverityLevel {
	switch {
	case confidence > 0.9 && deviationPercent > 50:
		return SeverityCritical
	case confidence > 0.7 && deviationPercent > 20:
		return SeverityWarning
	default:
		return SeverityInfo
	}
}

func mean(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}

// stddev is the population standard deviation.
func stddev(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	m, sum := mean(values), 0.0
	for _, v := range values {
		sum += (v - m) * (v - m)
	}
	return math.Sqrt(sum / float64(len(values)))
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Clone(values)
	slices.Sort(sorted)
	half := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[half]
	}
	return (sorted[half-1] + sorted[half]) / 2
}

var (
	_ Detector = (*IsolationForestModel)(nil)
	_ Detector = (*LSTMAutoencoderModel)(nil)
	_          = stddev
	_          = median
)
