package anomaly

import (
	"fmt"
	"math"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// shape is what a request of a detector has to look like.
type shape struct {
	names     []string
	timesteps int
}

func shapeOf(m *anomalyv1.ModelMetadata) shape {
	return shape{names: m.GetFeatureNames(), timesteps: windowLength(m)}
}

// windowLength is the number of samples that a detector scores at once: 1 for one without a window (rules W1, W2).
func windowLength(m *anomalyv1.ModelMetadata) int {
	if m.Timesteps == nil {
		return 1
	}
	return int(m.GetTimesteps())
}

// finite says whether x is neither NaN nor infinite (rule F3). x-x is 0 for every finite x and NaN otherwise.
func finite(x float64) bool { return x-x == 0 }

// checkSamples is the part of E2 that follows the detector: count, then sample by sample width and values, then window.
func (s shape) checkSamples(samples [][]float64) *Error {
	if len(samples) == 0 {
		return refuse(CodeNoSamples, "samples", "the request has no sample")
	}
	if len(samples) > MaxSamples {
		return refuse(CodeTooManySamples, "samples", "%d samples; a request carries at most %d", len(samples), MaxSamples)
	}
	for i, sample := range samples {
		if len(sample) != len(s.names) {
			return refuse(CodeWrongWidth, fmt.Sprintf("samples[%d]", i), "%d values; the schema has %d features", len(sample), len(s.names))
		}
		for j, x := range sample {
			if !finite(x) {
				return s.notFinite("samples", i, j, x)
			}
		}
	}
	if len(samples) < s.timesteps {
		return refuse(CodeWindowTooShort, "samples", "%d samples; the window of the model has %d", len(samples), s.timesteps)
	}
	return nil
}

func (s shape) notFinite(list string, i, j int, x float64) *Error {
	word := "NaN"
	if !math.IsNaN(x) {
		word = "infinite"
	}
	return refuse(CodeNotFinite, fmt.Sprintf("%s[%d].%s", list, i, s.names[j]), "the value is %s; only finite values are scored", word)
}

// checkBatch checks a batch in the order of E2 and gives the number of items and the distance between them in values.
func (s shape) checkBatch(rows []float64, layout BatchLayout) (count, stride int, _ *Error) {
	width := len(s.names)
	if layout < 0 || layout > BatchSeries {
		return 0, 0, refuse(CodeInvalidRequest, "layout", "%d is not a batch layout", layout)
	}
	if len(rows)%width != 0 {
		return 0, 0, refuse(CodeInvalidRequest, "rows", "%d values are no whole number of rows of %d", len(rows), width)
	}
	n := len(rows) / width
	if n == 0 {
		return 0, 0, refuse(CodeNoSamples, "rows", "the batch has no row")
	}
	series := layout == BatchSeries
	if series {
		count, stride = max(n-s.timesteps+1, 0), width
	} else {
		count, stride = n/s.timesteps, width*s.timesteps
	}
	if count > MaxBatchItems || len(rows) > MaxBatchBytes/8 {
		return 0, 0, refuse(CodeBatchTooLarge, "rows", "%d items in %d bytes; a batch carries at most %d items and %d bytes",
			count, len(rows)*8, MaxBatchItems, MaxBatchBytes)
	}
	for k, x := range rows {
		if !finite(x) {
			return 0, 0, s.notFinite("rows", k/width, k%width, x)
		}
	}
	if count == 0 || (!series && n%s.timesteps != 0) {
		return 0, 0, refuse(CodeWindowTooShort, "rows", "%d rows are no whole number of windows of %d", n, s.timesteps)
	}
	return count, stride, nil
}
