package anomaly

import (
	"context"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// Limits of requests (rules W3 and W4).
const (
	// MaxSamples is the largest number of samples in a request.
	MaxSamples = 256
	// MaxBatchItems is the largest number of rows, or windows of a detector that has one, in a batch.
	MaxBatchItems = 16384
	// MaxBatchBytes is the largest size of a batch's rows.
	MaxBatchBytes = 64 << 20
)

// Explain says whether contributions and expected values are computed.
type Explain int32

// The values of Explain. The zero value is ExplainAlarms.
const (
	// ExplainAlarms computes them for anomalies only.
	ExplainAlarms = Explain(anomalyv1.Explain_EXPLAIN_UNSPECIFIED)
	ExplainAlways = Explain(anomalyv1.Explain_EXPLAIN_ALWAYS)
	ExplainNever  = Explain(anomalyv1.Explain_EXPLAIN_NEVER)
)

func (e Explain) wanted(isAnomaly bool) bool {
	return e == ExplainAlways || (isAnomaly && e != ExplainNever)
}

// Level is how bad a score is (rule C4).
type Level int32

// The levels.
const (
	LevelNormal   = Level(anomalyv1.Level_LEVEL_NORMAL)
	LevelWarning  = Level(anomalyv1.Level_LEVEL_WARNING)
	LevelCritical = Level(anomalyv1.Level_LEVEL_CRITICAL)
)

// String is NORMAL, WARNING or CRITICAL.
func (l Level) String() string {
	switch l {
	case LevelNormal:
		return "NORMAL"
	case LevelWarning:
		return "WARNING"
	case LevelCritical:
		return "CRITICAL"
	}
	return "UNSPECIFIED"
}

// BatchLayout is how the rows of a batch are grouped.
type BatchLayout int32

// The layouts. The zero value is BatchWindows.
const (
	// BatchWindows: independent items; each row, or each run of `timesteps` rows for a detector with a window.
	BatchWindows = BatchLayout(anomalyv1.BatchLayout_BATCH_LAYOUT_UNSPECIFIED)
	// BatchSeries: one series, oldest first; every row from the first full window on is scored.
	BatchSeries = BatchLayout(anomalyv1.BatchLayout_BATCH_LAYOUT_SERIES)
)

// Request is one sample or window to score.
type Request struct {
	Detector Detector
	// Samples are raw values in raw units, oldest first, each in the order of the feature schema (rules F1, W1, W2).
	Samples [][]float64
	Explain Explain
	// ModelSetID, when set, must be the id of the set in use; else MODEL_SET_MISMATCH.
	ModelSetID string
	// Series is whose samples they are: a fleet scores them with the set of this series. A single set does not look at it (rule FL2).
	Series string
}

// Verdict is the answer to a Request. A Verdict can be used again: its slices are refilled, not replaced.
type Verdict struct {
	// Score is the published score, higher is worse (rule P1).
	Score     float32
	IsAnomaly bool
	// Threshold: IsAnomaly is equivalent to Score > Threshold (rule D1).
	Threshold float64
	// PValue is the share of normal data expected to score this high or higher (rule C2).
	PValue float64
	Level  Level
	// Contributions has one value per feature, and is empty when not asked for (rules IF7, LA6, DA4, LF5, SV4, LC4, EN7,
	// MD5).
	Contributions []float32
	// Expected has one value per feature in raw units, and is empty when Contributions is (rules IF6, LA7, DA5, LF6,
	// SV5, LC5, EN7, MD4).
	Expected []float32
	// TopFeature is the feature that contributes most; empty when there are no contributions, or all are 0.
	TopFeature string
	// DepthSum is the exact sum of path lengths of an isolation forest, 0 for other detectors (rule IF3).
	DepthSum float64
	// Members is what each member of an ensemble said, in the order of the enum, explained or not; empty for other detectors (rule EN6).
	Members []MemberVerdict
}

// decide publishes a score (rules P1, D1) that nothing explains yet, and says whether an explanation is wanted.
func (v *Verdict) decide(score, threshold float64, explain Explain) (wanted bool) {
	v.Score = float32(score)
	v.IsAnomaly = float64(v.Score) > threshold
	v.DepthSum = 0
	v.Contributions, v.Expected = v.Contributions[:0], v.Expected[:0]
	return explain.wanted(v.IsAnomaly)
}

// MemberVerdict is what one member of an ensemble said.
type MemberVerdict struct {
	Detector Detector
	// Weight among the members that answered; 0 when it did not.
	Weight float64
	// Score is the member's published score, Normalized the same on the common scale from 0 to 1, on which 0.3 is the member's
	// threshold (rules EN3, EN8). Both are 0 when it did not answer.
	Score      float32
	Normalized float64
	// Missing says why the member did not answer; empty when it did.
	Missing string
}

// BatchRequest is many samples or windows to score, each to the same bits as alone (rule W4).
type BatchRequest struct {
	Detector Detector
	// Rows are the values row after row, in schema order.
	Rows       []float64
	Layout     BatchLayout
	Explain    Explain
	ModelSetID string
	// Series is as in Request.
	Series string
}

// BatchVerdict has one entry of each list per scored item, in order. It can be used again like a Verdict. What the members of an
// ensemble said is in a Verdict alone.
type BatchVerdict struct {
	Scores    []float32
	IsAnomaly []bool
	PValues   []float64
	Levels    []Level
	// Contributions and Expected have one row of features per item, zeros for items that were not explained, and
	// are empty with ExplainNever.
	Contributions []float32
	Expected      []float32
	// DepthSums is empty unless the detector is an isolation forest.
	DepthSums []float64
	Threshold float64
}

// Scorer is the one interface over the three backends: *ModelSet (native or ONNX Runtime) and *Sidecar. Every method is
// safe for concurrent use. All errors are *Error.
type Scorer interface {
	// Score scores one sample or window into verdict. After an error the content of verdict means nothing (rule E3).
	Score(ctx context.Context, request Request, verdict *Verdict) error
	// ScoreBatch scores many samples or windows into verdict.
	ScoreBatch(ctx context.Context, request BatchRequest, verdict *BatchVerdict) error
	// ID is the id of the model set that gives the scores (rule A1).
	ID() string
	// Metadata describes a detector of the set, nil when it cannot be scored. It must not be changed.
	Metadata(detector Detector) *anomalyv1.ModelMetadata
	// Close lets go of what the backend holds.
	Close() error
}

// engine scores windows that have been checked. A window is timesteps*features raw values (one row for a detector without a
// window).
// Engines fill Score, IsAnomaly, DepthSum and, when wanted, Contributions and Expected; they are safe for concurrent use.
type engine interface {
	score(window []float64, explain Explain, verdict *Verdict) error
	close() error
}

// batchEngine is an engine with a faster way to score many windows; rows holds them at distances of stride values.
type batchEngine interface {
	engine
	scoreBatch(ctx context.Context, rows []float64, count, stride int, explain Explain, verdict *BatchVerdict) error
}

// WindowLength is the number of samples that a detector scores at once: 1 for one without a window. 0 when it cannot be scored.
func WindowLength(s Scorer, detector Detector) int {
	if m := s.Metadata(detector); m != nil {
		return windowLength(m)
	}
	return 0
}

// CheckRequest checks samples in the order of E2 without scoring them.
func CheckRequest(s Scorer, detector Detector, samples [][]float64) error {
	m := s.Metadata(detector)
	if m == nil {
		return refuse(CodeDetectorUnavailable, "detector", "%s cannot be scored with model set %s", detector, s.ID())
	}
	if err := shapeOf(m).checkSamples(samples); err != nil {
		return err
	}
	return nil
}

// Item copies item i of a batch into a Verdict, with features values per item, except for the name of the top feature.
func (v *BatchVerdict) Item(i, features int, to *Verdict) {
	to.Score, to.IsAnomaly, to.Threshold = v.Scores[i], v.IsAnomaly[i], v.Threshold
	to.PValue, to.Level, to.TopFeature, to.DepthSum = v.PValues[i], v.Levels[i], "", 0
	if len(v.DepthSums) > 0 {
		to.DepthSum = v.DepthSums[i]
	}
	to.Contributions, to.Expected, to.Members = to.Contributions[:0], to.Expected[:0], to.Members[:0]
	if len(v.Contributions) > 0 {
		to.Contributions = append(to.Contributions, v.Contributions[i*features:][:features]...)
		to.Expected = append(to.Expected, v.Expected[i*features:][:features]...)
	}
}
