package anomaly

import (
	"fmt"
	"slices"

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

// openLSTM audits a graph of layout lstm.v1 (rule G2) and constructs its scorer.
func openLSTM(m *onnxModel, meta *anomalyv1.ModelMetadata) (engine, error) {
	in, units := lstmWidths(meta)
	features := int(meta.GetNFeatures())
	values := []string{"scaler_mean", "scaler_scale", "threshold", "dense.kernel", "dense.bias"}
	for _, layer := range lstmLayerNames {
		values = append(values, layer+".kernel", layer+".recurrent", layer+".bias")
	}
	// The wiring has the shapes of all initializers.
	if err := m.checkWiring(lstmWiring(int(meta.GetTimesteps()), features, units), within(values...)); err != nil {
		return nil, err
	}
	r := valueReader{model: m, elemType: typeFloat64}
	var w networkWeights
	for i, layer := range lstmLayerNames {
		w.layers[i] = lstmWeights{
			in: in[i], units: units[i],
			kernel:    r.read(layer+".kernel", in[i], 4*units[i]),
			recurrent: r.read(layer+".recurrent", units[i], 4*units[i]),
			bias:      r.read(layer+".bias", 4*units[i]),
		}
	}
	return r.autoencoder(meta, w)
}

// valueReader reads initializers and remembers the first fault.
type valueReader struct {
	model    *onnxModel
	elemType int64
	err      error
}

func (r *valueReader) read(name string, shape ...int) []float64 {
	if r.err != nil {
		return nil
	}
	elements := 1
	dims := make([]int64, len(shape))
	for i, d := range shape {
		elements *= d
		dims[i] = int64(d)
	}
	values, err := r.model.values(name, r.elemType, elements)
	if err == nil && !slices.Equal(r.model.initializers[name].dims, dims) {
		err = fmt.Errorf("%s has shape %v, not %v", name, r.model.initializers[name].dims, dims)
	}
	r.err = err
	return values
}

// autoencoder reads the dense layer, checks scaler and threshold against the metadata (S2) and constructs the scorer.
func (r *valueReader) autoencoder(meta *anomalyv1.ModelMetadata, w networkWeights) (engine, error) {
	features := int(meta.GetNFeatures())
	w.denseKernel = r.read("dense.kernel", w.layers[3].units, features)
	w.denseBias = r.read("dense.bias", features)
	if r.err != nil {
		return nil, r.err
	}
	s, err := r.model.scaler(meta)
	if err != nil {
		return nil, err
	}
	if err := r.model.checkValues("threshold", []float64{meta.GetThreshold()}, typeFloat64); err != nil {
		return nil, err
	}
	return newLSTMAutoencoder(s, meta.GetThreshold(), int(meta.GetTimesteps()), w), nil
}
