package anomaly

import (
	"fmt"
	"math"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// Bounds of a dense autoencoder.
const (
	// maxDenseLayers is the largest number of hidden layers.
	maxDenseLayers = 64
	// largestReconstruction: above it the square of an error could overflow (rule DA2).
	largestReconstruction = 1e150
)

// openDense audits a graph of layout dense.v1 or dense.int8.v1 (rules G2, Q1) and constructs its scorer.
func openDense(m *onnxModel, meta *anomalyv1.ModelMetadata) (engine, error) {
	features, activation := int(meta.GetNFeatures()), meta.GetDense().GetActivation()
	var units []int
	for _, u := range meta.GetDense().GetUnits() {
		units = append(units, int(u))
	}
	units = append(units, features) // the output layer is as wide as the sample (DA1)
	wiring, isValue := denseWiring(features, activation, units), denseValues(len(units))
	r := valueReader{model: m, elemType: typeFloat64, int8: isInt8(meta)}
	if r.int8 {
		wiring, isValue = int8Wiring(wiring, isWeight), int8Values(isValue)
	}
	if err := m.checkWiring(wiring, isValue); err != nil {
		return nil, err
	}
	layers := make([]denseLayer, len(units))
	in := features
	for i, out := range units {
		name := denseLayerName(i)
		layers[i] = denseLayer{in: in, out: out, kernel: r.readWeights(name+".kernel", in, out), bias: r.readWeights(name+".bias", out)}
		in = out
	}
	s, threshold := r.shared(meta)
	if r.err != nil {
		return nil, r.err
	}
	if err := checkReconstruction(layers); err != nil {
		return nil, err
	}
	return newDenseAutoencoder(s, threshold, activation, layers), nil
}

// checkReconstruction refuses weights with which a value inside the network could become too large to be squared (rule DA2).
func checkReconstruction(layers []denseLayer) error {
	largest := zLimit
	for i, l := range layers {
		column, bias := 0.0, 0.0
		for c := range l.out {
			sum := 0.0
			for k := range l.in {
				sum += math.Abs(l.kernel[k*l.out+c])
			}
			column, bias = max(column, sum), max(bias, math.Abs(l.bias[c]))
		}
		largest = float64(largest*column) + bias
		if !(largest <= largestReconstruction) { // also where it is NaN
			return fmt.Errorf("%s.kernel and %s.bias let values grow to %g; the largest allowed is %g",
				denseLayerName(i), denseLayerName(i), largest, largestReconstruction)
		}
	}
	return nil
}
