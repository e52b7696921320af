package anomaly

import (
	"errors"
	"fmt"
	"math"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// largestParameter is the largest size of a number of a Mahalanobis distance (rule MD7). With it nothing overflows: every finite window
// has a finite score.
const largestParameter = 1e6

// openMahalanobis audits a graph of layout mahalanobis.v1 (rules G2, MD7) and constructs its scorer.
func openMahalanobis(m *onnxModel, meta *anomalyv1.ModelMetadata) (engine, error) {
	features, timesteps := int(meta.GetNFeatures()), windowLength(meta)
	if err := m.checkWiring(mahalanobisWiring(timesteps, features), mahalanobisValues); err != nil {
		return nil, err
	}
	size := timesteps * features
	parameters := meta.GetMahalanobis()
	r := valueReader{model: m, elemType: typeFloat64}
	w := mahalanobisWeights{
		row: r.read("row_factor", features, features), regression: r.read("regression", size, features),
		precision: r.read("precision", features), limitStart: parameters.GetLimitStart(), limitSlope: parameters.GetLimitSlope(),
	}
	if timesteps > 1 {
		w.window = r.read("window_factor", size, size)
	}
	s, threshold := r.shared(meta)
	if r.err != nil {
		return nil, r.err
	}
	err := errors.Join(
		m.checkValues("limit_start", w.limitStart, typeFloat64),
		m.checkValues("limit_slope", w.limitSlope, typeFloat64),
		w.check(features, size),
	)
	if err != nil {
		return nil, err
	}
	return newMahalanobis(s, threshold, timesteps, w), nil
}

// check refuses what no covariance leads to (rules MD4, MD7). Limits are checked with the metadata.
func (w *mahalanobisWeights) check(features, size int) error {
	err := errors.Join(
		checkSizes("row_factor", w.row), checkSizes("window_factor", w.window),
		checkSizes("regression", w.regression), checkSizes("precision", w.precision),
	)
	if err != nil {
		return err
	}
	for j, p := range w.precision {
		if p <= 0 {
			return fmt.Errorf("precision[%d] is %v; it is above 0", j, p)
		}
		if e := w.regression[(size-features+j)*features+j]; e != 0 {
			return fmt.Errorf("regression[%d,%d] is %v; no metric is expected from itself", size-features+j, j, e)
		}
	}
	if !isTriangular(w.row, features) {
		return fmt.Errorf("row_factor is not triangular")
	}
	if w.window != nil && !isTriangular(w.window, size) {
		return fmt.Errorf("window_factor is not triangular")
	}
	return nil
}

// checkSizes refuses a number that is not finite or above 1e6 in size (rule MD7).
func checkSizes(name string, values []float64) error {
	for i, v := range values {
		if !(math.Abs(v) <= largestParameter) { // also where it is NaN
			return fmt.Errorf("%s[%d] is %v; its size is at most %v", name, i, v, float64(largestParameter))
		}
	}
	return nil
}
