package anomaly

import (
	"errors"
	"fmt"
	"slices"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// tf2onnxOperators are the operators that tf2onnx puts around the LSTM nodes of a Keras autoencoder: they move values, start states
// at 0 and apply the dense layer. None of them bends a value.
var tf2onnxOperators = []string{
	"Add", "Cast", "Concat", "ConstantOfShape", "Expand", "Gather", "Identity", "LSTM", "MatMul", "Reshape", "Shape", "Slice", "Squeeze",
	"Tile", "Transpose", "Unsqueeze",
}

// openLSTMFloat32 audits a graph of layout lstm.float32.v1 (rule G2) and constructs a scorer that computes in float64 on its
// weights. The names between the LSTM nodes are tf2onnx's; what stands before and after them is ours and compared literally.
func openLSTMFloat32(m *onnxModel, meta *anomalyv1.ModelMetadata) (engine, error) {
	in, units := lstmWidths(meta)
	features := int(meta.GetNFeatures())
	if err := m.checkFloat32Wiring(int(meta.GetTimesteps()), features, units); err != nil {
		return nil, err
	}
	r := valueReader{model: m, elemType: typeFloat32}
	var w networkWeights
	for i, layer := range lstmLayerNames {
		u := units[i]
		kernel := r.read(layer+".W", 1, 4*u, in[i])
		recurrent := r.read(layer+".R", 1, 4*u, u)
		bias := r.read(layer+".B", 1, 8*u)
		if r.err != nil {
			return nil, r.err
		}
		w.layers[i] = lstmWeights{
			in: in[i], units: u, kernel: fromONNXGates(kernel, in[i], u), recurrent: fromONNXGates(recurrent, u, u), bias: make([]float64, 4*u),
		}
		// ONNX has two biases, of the kernel and of the recurrent part, side by side.
		sum := make([]float64, 4*u)
		for c := range sum {
			sum[c] = bias[c] + bias[4*u+c]
		}
		copy(w.layers[i].bias, fromONNXGates(sum, 1, u))
	}
	return r.autoencoder(meta, w)
}

// fromONNXGates turns [4 units, in] with ONNX's gate order input, output, forget, candidate into [in, 4 units] in that of LA3.
func fromONNXGates(w []float64, in, units int) []float64 {
	out := make([]float64, len(w))
	for gate, from := range [4]int{0, 2, 1, 3} {
		for u := range units {
			for k := range in {
				out[k*4*units+gate*units+u] = w[(from*units+u)*in+k]
			}
		}
	}
	return out
}

// checkFloat32Wiring checks the nodes: S1, a cast, tf2onnx's operators with the four LSTM nodes in the order of LA1, a cast, LA5 to LA8.
func (m *onnxModel) checkFloat32Wiring(timesteps, features int, units [4]int) error {
	want := []string{fmt.Sprintf("input samples float64[?,%d,%d]", timesteps, features)}
	want = append(want, scoreOutputs(features)...)
	shared := scoreInitializers(timesteps, features)
	want = append(want, initializerLines(shared)...)
	want = append(want, scaleNodes("samples", "scaled/float64")...)
	tail := scoreNodes("scaled/float64")
	const castIn, castOut = 1, 1
	middle := len(m.nodes) - 3 - castIn - castOut - len(tail)
	if middle < len(lstmLayerNames) {
		return errors.New("the graph has too few nodes")
	}
	inner := m.nodes[3+castIn : 3+castIn+middle]
	first, last := m.nodes[3], m.nodes[3+castIn+middle]
	if err := checkInner(inner, first, last, units); err != nil {
		return err
	}
	// What is ours, as a graph of its own.
	ours := *m
	ours.opsets = nil
	ours.nodes = slices.Concat(m.nodes[:3], m.nodes[len(m.nodes)-len(tail):])
	ours.initializerNames = slices.DeleteFunc(slices.Clone(m.initializerNames), func(name string) bool {
		_, ok := shared[name]
		return !ok
	})
	return ours.checkWiring(append(want, tail...), within("scaler_mean", "scaler_scale", "threshold"))
}

// checkInner checks the part that tf2onnx wrote, from the cast to float32 to the cast back.
func checkInner(inner []onnxNode, castIn, castOut onnxNode, units [4]int) error {
	if castIn.opType != "Cast" || len(castIn.inputs) != 1 || castIn.inputs[0] != "scaled/float64" ||
		castOut.opType != "Cast" || len(castOut.outputs) != 1 || castOut.outputs[0] != "reconstructed" {
		return errors.New("the LSTM nodes do not stand between casts of `scaled/float64` and `reconstructed`")
	}
	lstms := 0
	for i := range inner {
		n := &inner[i]
		if n.domain != "" || !slices.Contains(tf2onnxOperators, n.opType) {
			return fmt.Errorf("operator %s.%s is not part of the layout", n.domain, n.opType)
		}
		if n.opType != "LSTM" {
			continue
		}
		if lstms == len(lstmLayerNames) || len(n.inputs) < 4 {
			return errors.New("there are more than four LSTM nodes, or one without weights and biases")
		}
		layer := lstmLayerNames[lstms]
		if !slices.Equal(n.inputs[1:4], []string{layer + ".W", layer + ".R", layer + ".B"}) {
			return fmt.Errorf("LSTM node %d has the weights %v, not those of %s", lstms, n.inputs[1:4], layer)
		}
		// Other activations, clipping, coupled gates or a direction would be another cell than that of LA3.
		for k := range n.attributes {
			a := &n.attributes[k]
			switch {
			case a.name == "hidden_size" && a.i == int64(units[lstms]):
			case a.name == "direction" && string(a.s) == "forward":
			case a.name == "activations" && slices.Equal(a.strings, []string{"Sigmoid", "Tanh", "Tanh"}):
			default:
				return fmt.Errorf("LSTM node %s has attribute %s", layer, a.name)
			}
		}
		lstms++
	}
	if lstms != len(lstmLayerNames) {
		return fmt.Errorf("%d LSTM nodes, not four", lstms)
	}
	return nil
}
