package anomaly

import (
	"fmt"
	"slices"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// checkDrift refuses a drift reference that contradicts itself (rules DR1 to DR5). Older sets have none.
func checkDrift(m *anomalyv1.ModelMetadata) error {
	d := m.GetDrift()
	if d == nil {
		return nil
	}
	if len(d.GetFeatures()) != len(m.GetFeatureNames()) {
		return fmt.Errorf("drift.features has %d entries for %d features", len(d.GetFeatures()), len(m.GetFeatureNames()))
	}
	sizes := d.GetSizes()
	if len(sizes) == 0 || sizes[0] == 0 || !ascending(sizes) {
		return fmt.Errorf("drift.sizes are %d numbers that are not all above 0, or do not ascend", len(sizes))
	}
	if rate := d.GetRate(); !(rate > 0 && rate < 1) {
		return fmt.Errorf("drift.rate is %v; it is above 0 and below 1", rate)
	}
	for name, threshold := range map[string]float64{"psi_threshold": d.GetPsiThreshold(), "wasserstein_threshold": d.GetWassersteinThreshold()} {
		if !(threshold >= 0) || !finite(threshold) {
			return fmt.Errorf("drift.%s is %v; it is 0 or more", name, threshold)
		}
	}
	rows := sum32(d.GetFeatures()[0].GetCounts())
	for j, f := range d.GetFeatures() {
		if err := checkDriftFeature(f, len(sizes)); err != nil {
			return fmt.Errorf("drift.features[%d].%w", j, err)
		}
		if n := sum32(f.GetCounts()); n == 0 || n != rows {
			return fmt.Errorf("drift.features[%d].counts sum to %d, those of the first feature to %d, or nothing was counted", j, n, rows)
		}
	}
	return nil
}

func checkDriftFeature(f *anomalyv1.DriftFeature, sizes int) error {
	edges := f.GetEdges()
	if len(edges) == 0 || !ascending(edges) {
		return fmt.Errorf("edges are %d numbers that do not ascend", len(edges))
	}
	for _, edge := range edges {
		if !finite(edge) {
			return fmt.Errorf("edges have the value %v", edge)
		}
	}
	if !finite(edges[len(edges)-1] - edges[0]) {
		return fmt.Errorf("edges are further apart than float64 goes")
	}
	if len(f.GetCounts()) != len(edges)+1 {
		return fmt.Errorf("counts has %d values for %d edges; it has one more", len(f.GetCounts()), len(edges))
	}
	if s := f.GetScale(); !(s > 0) || !finite(s) {
		return fmt.Errorf("scale is %v; it is above 0", s)
	}
	for name, values := range map[string][]float64{"psi_critical": f.GetPsiCritical(), "wasserstein_critical": f.GetWassersteinCritical()} {
		if len(values) != sizes {
			return fmt.Errorf("%s has %d values for %d sizes", name, len(values), sizes)
		}
		if i := slices.IndexFunc(values, func(v float64) bool { return !(v >= 0) || !finite(v) }); i >= 0 {
			return fmt.Errorf("%s[%d] is %v; it is 0 or more", name, i, values[i])
		}
	}
	return nil
}

// ascending says whether each number is larger than the one before; NaN is not.
func ascending[N uint32 | float64](numbers []N) bool {
	for i := 1; i < len(numbers); i++ {
		if !(numbers[i] > numbers[i-1]) {
			return false
		}
	}
	return true
}

func sum32(counts []uint32) (sum uint64) {
	for _, count := range counts {
		sum += uint64(count)
	}
	return sum
}
