package anomaly

import (
	"fmt"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// openNeighbors audits a graph of layout neighbors.v1 (rule G2) and constructs its scorer. Whether k_distance and density are those
// of the rows (LF3) cannot be seen without computing them again; the golden vectors tell.
func openNeighbors(m *onnxModel, meta *anomalyv1.ModelMetadata) (engine, error) {
	features := int(meta.GetNFeatures())
	rows, nNeighbors := int(meta.GetNeighbors().GetRows()), int(meta.GetNeighbors().GetNNeighbors())
	if err := m.checkWiring(neighborWiring(features, rows, nNeighbors), neighborValues); err != nil {
		return nil, err
	}
	r := valueReader{model: m, elemType: typeFloat64}
	w := neighborWeights{
		rows: r.read("rows", rows, features), kDistance: r.read("k_distance", rows), density: r.read("density", rows),
	}
	s, threshold := r.shared(meta)
	if r.err != nil {
		return nil, r.err
	}
	for i := range rows {
		if w.kDistance[i] < 0 {
			return nil, fmt.Errorf("k_distance[%d] is %v; a distance is at least 0", i, w.kDistance[i])
		}
		if w.density[i] <= 0 {
			return nil, fmt.Errorf("density[%d] is %v; a density is above 0", i, w.density[i])
		}
	}
	return newLocalOutlierFactor(s, threshold, nNeighbors, w), nil
}
