package anomaly

import (
	"fmt"
	"math"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// classifierLayerNames are the LSTM layers in the order of LC1.
var classifierLayerNames = [2]string{"lstm_1", "lstm_2"}

// openClassifier audits a graph of layout classifier.v1 (rule G2) and constructs its scorer.
func openClassifier(m *onnxModel, meta *anomalyv1.ModelMetadata) (engine, error) {
	features, timesteps := int(meta.GetNFeatures()), int(meta.GetTimesteps())
	var units [3]int
	for i, u := range meta.GetClassifier().GetUnits() {
		units[i] = int(u)
	}
	// The wiring has the shapes of all initializers.
	if err := m.checkWiring(classifierWiring(timesteps, features, units), classifierValues); err != nil {
		return nil, err
	}
	r := valueReader{model: m, elemType: typeFloat64}
	var w classifierWeights
	in := features
	for i, layer := range classifierLayerNames {
		w.layers[i] = r.layer(layer, in, units[i])
		in = units[i]
	}
	w.denseKernel, w.denseBias = r.read("dense_1.kernel", in, units[2]), r.read("dense_1.bias", units[2])
	w.outputKernel, w.outputBias = r.read("output.kernel", units[2], 1), r.read("output.bias", 1)
	s, threshold := r.shared(meta)
	if r.err != nil {
		return nil, r.err
	}
	references := meta.GetReferenceValues()
	if err := m.checkReferences(s, references); err != nil {
		return nil, err
	}
	if err := w.check(); err != nil {
		return nil, err
	}
	return newLSTMClassifier(s, threshold, timesteps, w, references), nil
}

// check refuses weights that no float32 can be (rule LC2). Without them nothing in the network overflows, and every finite window has
// a finite score.
func (w *classifierWeights) check() error {
	lists := [][]float64{w.denseKernel, w.denseBias, w.outputKernel, w.outputBias}
	for _, l := range w.layers {
		lists = append(lists, l.kernel, l.recurrent, l.bias)
	}
	for _, list := range lists {
		for _, x := range list {
			if math.Abs(x) > math.MaxFloat32 {
				return fmt.Errorf("a weight is %v; weights are float32 numbers", x)
			}
		}
	}
	return nil
}
