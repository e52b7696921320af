package anomaly

import (
	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// lstmLayerNames are the layers in the order of LA1.
var lstmLayerNames = [4]string{"encoder_1", "encoder_2", "decoder_1", "decoder_2"}

// lstmWidths gives input width and units of each layer.
func lstmWidths(meta *anomalyv1.ModelMetadata) (in, units [4]int) {
	for i, u := range meta.GetLstm().GetUnits() {
		units[i] = int(u)
	}
	in[0] = int(meta.GetNFeatures())
	copy(in[1:], units[:3])
	return in, units
}

// openLSTM audits a graph of layout lstm.v1 or lstm.int8.v1 (rules G2, Q1) and constructs its scorer.
func openLSTM(m *onnxModel, meta *anomalyv1.ModelMetadata) (engine, error) {
	in, units := lstmWidths(meta)
	features := int(meta.GetNFeatures())
	values := []string{"scaler_mean", "scaler_scale", "threshold", "dense.kernel", "dense.bias"}
	for _, layer := range lstmLayerNames {
		values = append(values, layer+".kernel", layer+".recurrent", layer+".bias")
	}
	// The wiring has the shapes of all initializers.
	wiring, isValue := lstmWiring(int(meta.GetTimesteps()), features, units), within(values...)
	r := valueReader{model: m, elemType: typeFloat64, int8: isInt8(meta)}
	if r.int8 {
		wiring, isValue = int8Wiring(wiring, isWeight), int8Values(isValue)
	}
	if err := m.checkWiring(wiring, isValue); err != nil {
		return nil, err
	}
	var w networkWeights
	for i, layer := range lstmLayerNames {
		w.layers[i] = r.layer(layer, in[i], units[i])
	}
	return r.autoencoder(meta, w)
}

// autoencoder reads the dense layer and what all graphs have, and constructs the scorer.
func (r *valueReader) autoencoder(meta *anomalyv1.ModelMetadata, w networkWeights) (engine, error) {
	features := int(meta.GetNFeatures())
	w.denseKernel = r.readWeights("dense.kernel", w.layers[3].units, features)
	w.denseBias = r.readWeights("dense.bias", features)
	s, threshold := r.shared(meta)
	if r.err != nil {
		return nil, r.err
	}
	return newLSTMAutoencoder(s, threshold, int(meta.GetTimesteps()), w), nil
}

// layer reads the weights of an LSTM layer.
func (r *valueReader) layer(name string, in, units int) lstmWeights {
	return lstmWeights{
		in: in, units: units,
		kernel:    r.readWeights(name+".kernel", in, 4*units),
		recurrent: r.readWeights(name+".recurrent", units, 4*units),
		bias:      r.readWeights(name+".bias", 4*units),
	}
}
