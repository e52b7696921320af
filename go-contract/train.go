package anomaly

import (
	"fmt"
	"math"
	"slices"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// Training in process makes a model set in memory: it scores like any other, but has no files, no golden vectors and no id that
// another process would know. It is meant for a service that has to work before the first model set has been published.

// InProcess is the id of a model set that was trained in this process.
const InProcess = "in-process"

// holdOut is the share of the rows, from the end, that calibration takes (rule C3). Below minHoldOutRows every row is fitted, and
// the calibration scores are those of the fitted rows: honest p-values need more data.
const (
	holdOut        = .2
	minHoldOutRows = 200
)

// copyRows checks rows against the schema and copies them, so that the caller keeps its own (rules F1, F3).
func copyRows(schema *anomalyv1.FeatureSchema, rows [][]float64) ([][]float64, *Error) {
	s := shape{timesteps: 1}
	for _, f := range schema.GetFeatures() {
		s.names = append(s.names, f.GetName())
	}
	if len(rows) == 0 {
		return nil, refuse(CodeNoSamples, "rows", "there is no training data")
	}
	out := make([][]float64, len(rows))
	for i, row := range rows {
		if len(row) != len(s.names) {
			return nil, refuse(CodeWrongWidth, fmt.Sprintf("rows[%d]", i), "%d values; the schema has %d features", len(row), len(s.names))
		}
		for j, x := range row {
			if !finite(x) {
				return nil, s.notFinite("rows", i, j, x)
			}
		}
		out[i] = slices.Clone(row)
	}
	return out, nil
}

// fitScaler gives mean and population standard deviation of each feature; 1 where a feature does not vary (scikit-learn's
// StandardScaler).
func fitScaler(rows [][]float64) scaler {
	width := len(rows[0])
	s := scaler{mean: make([]float64, width), scale: make([]float64, width)}
	n := float64(len(rows))
	for j := range width {
		for _, row := range rows {
			s.mean[j] += row[j] / n
		}
		for _, row := range rows {
			d := row[j] - s.mean[j]
			s.scale[j] += d * d / n
		}
		s.scale[j] = math.Sqrt(s.scale[j])
		if !(s.scale[j] > 1e-12*math.Abs(s.mean[j])) || !finite(s.scale[j]) {
			s.scale[j] = 1
		}
	}
	return s
}

// medians gives the median of each feature (rule IF6).
func medians(rows [][]float64) []float64 {
	out := make([]float64, len(rows[0]))
	column := make([]float64, len(rows))
	for j := range out {
		for i, row := range rows {
			column[i] = row[j]
		}
		out[j] = quantile(column, .5)
	}
	return out
}

// quantile interpolates linearly between neighbouring values, as numpy does. It sorts values.
func quantile(values []float64, q float64) float64 {
	slices.Sort(values)
	at := q * float64(len(values)-1)
	low := int(math.Floor(at))
	high := min(low+1, len(values)-1)
	return values[low] + (values[high]-values[low])*(at-float64(low))
}

// nearestMidpoint moves a threshold to the midpoint of two neighbouring float32 numbers (rule D2).
func nearestMidpoint(t float64) float64 {
	t = max(t, 1e-30) // a threshold is above 0
	low := roundDown32(t)
	return (float64(low) + float64(math.Nextafter32(low, float32(math.Inf(1))))) / 2
}

// calibrationOf keeps at most 2,000 scores, ascending, evenly chosen (rule C1).
func calibrationOf(scores []float32, source string) *anomalyv1.Calibration {
	const most = 2000
	slices.Sort(scores)
	if n := len(scores); n > most {
		kept := make([]float32, most)
		for i := range kept {
			kept[i] = scores[i*(n-1)/(most-1)]
		}
		scores = kept
	}
	return &anomalyv1.Calibration{Scores: scores, Source: source}
}

// inMemory wraps an engine as a model set.
func inMemory(detector Detector, meta *anomalyv1.ModelMetadata, e engine) *ModelSet {
	m := &model{metadata: meta, shape: shapeOf(meta), calibration: newCalibration(meta), engine: e}
	return &ModelSet{
		id: InProcess, models: map[Detector]*model{detector: m}, metadata: map[Detector]*anomalyv1.ModelMetadata{detector: meta},
	}
}

// newMetadata is what all models trained in process say about themselves.
func newMetadata(detector Detector, schema *anomalyv1.FeatureSchema, s scaler, references []float64) *anomalyv1.ModelMetadata {
	meta := &anomalyv1.ModelMetadata{
		SchemaVersion: SchemaVersion, ModelType: detector.String(), NFeatures: uint32(len(s.mean)), FeatureSchema: schema,
		Scaler: &anomalyv1.Scaler{Mean: s.mean, Scale: s.scale}, ReferenceValues: references,
		ParityClass: anomalyv1.ParityClass_PARITY_CLASS_EXACT,
		Graph:       &anomalyv1.Graph{UnavailableReason: "trained in process"},
	}
	for _, f := range schema.GetFeatures() {
		meta.FeatureNames = append(meta.FeatureNames, f.GetName())
	}
	return meta
}
