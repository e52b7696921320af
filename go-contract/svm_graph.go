package anomaly

import (
	"errors"
	"fmt"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// maxAlphaSum is the largest sum of the weights of the support vectors (rule SV2): with it every score is a finite float32.
const maxAlphaSum = 1e6

// openSVM audits a graph of layout svm.v1 (rule G2) and constructs its scorer.
func openSVM(m *onnxModel, meta *anomalyv1.ModelMetadata) (engine, error) {
	features, vectors := int(meta.GetNFeatures()), int(meta.GetSvm().GetSupportVectors())
	if err := m.checkWiring(svmWiring(features, vectors), svmValues); err != nil {
		return nil, err
	}
	r := valueReader{model: m, elemType: typeFloat64}
	w := svmWeights{rows: r.read("rows", vectors, features), alpha: r.read("alpha", vectors), gamma: meta.GetSvm().GetGamma()}
	s, threshold := r.shared(meta)
	if r.err != nil {
		return nil, r.err
	}
	references := meta.GetReferenceValues()
	err := errors.Join(
		m.checkValues("gamma", []float64{w.gamma}, typeFloat64),
		m.checkReferences(s, references),
		checkAlpha(w.alpha),
	)
	if err != nil {
		return nil, err
	}
	return newOneClassSVM(s, threshold, w, references), nil
}

// checkAlpha refuses weights that are not above 0, or too large together (rules SV1, SV2).
func checkAlpha(alpha []float64) error {
	sum := 0.0
	for i, a := range alpha {
		if a <= 0 {
			return fmt.Errorf("alpha[%d] is %v; a weight is above 0", i, a)
		}
		sum += a
	}
	if sum > maxAlphaSum {
		return fmt.Errorf("the sum of alpha is %v; it is at most %v", sum, float64(maxAlphaSum))
	}
	return nil
}
