package anomaly

import (
	"fmt"
	"slices"
	"strings"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// precisionInt8 is the precision of graphs whose weights are stored in int8 (rules Q1, Q2).
const precisionInt8 = "int8"

// largestInt8 is the largest magnitude of a stored weight (rule Q1).
const largestInt8 = 127

// bitwise says whether the scores of a model are the same bits everywhere: in the EXACT class, and with weights in int8, which are
// float64 numbers again before anything is computed (rule Q2).
func bitwise(meta *anomalyv1.ModelMetadata) bool {
	return meta.GetParityClass() == anomalyv1.ParityClass_PARITY_CLASS_EXACT || meta.GetGraph().GetPrecision() == precisionInt8
}

// isInt8 says whether the graph of a model has its weights in int8.
func isInt8(meta *anomalyv1.ModelMetadata) bool {
	return meta.GetGraph().GetPrecision() == precisionInt8
}

// int8Wiring turns the wiring of a float64 layout into that of its int8 variant: each weight, a float64 initializer, becomes the output
// of nodes that stand before all others (rule Q1). isWeight says which initializers are weights.
func int8Wiring(wiring []string, isWeight func(name string) bool) []string {
	var lines, nodes []string
	place := 0 // of the first node
	for _, line := range wiring {
		kind, rest, _ := strings.Cut(line, " ")
		switch kind {
		case "opset", "input", "output", "initializer", "constant":
			place = len(lines) + 1
		}
		name, shape, _ := strings.Cut(rest, " float64")
		if kind != "initializer" || !isWeight(name) {
			lines = append(lines, line)
			continue
		}
		_, columns, isMatrix := strings.Cut(shape, ",")
		if !isMatrix {
			lines = append(lines, fmt.Sprintf("initializer %s.float32 float32%s", name, shape))
			nodes = append(nodes, fmt.Sprintf("Cast(%s.float32)->(%s){to=11}", name, name))
			place = len(lines)
			continue
		}
		lines = append(lines,
			fmt.Sprintf("initializer %s.int8 int8%s", name, shape),
			fmt.Sprintf("initializer %s.scale float32[%s", name, columns))
		nodes = append(nodes,
			fmt.Sprintf("Cast(%s.int8)->(%s.int8/wide){to=11}", name, name),
			fmt.Sprintf("Cast(%s.scale)->(%s.scale/wide){to=11}", name, name),
			fmt.Sprintf("Mul(%s.int8/wide,%s.scale/wide)->(%s)", name, name, name))
		place = len(lines)
	}
	return slices.Insert(lines, place, nodes...)
}

// isWeight says whether an initializer of a float64 layout is a weight of a network.
func isWeight(name string) bool {
	return strings.HasSuffix(name, ".kernel") || strings.HasSuffix(name, ".recurrent") || strings.HasSuffix(name, ".bias")
}

// int8Values are the initializers of an int8 variant that hold values of the model, from those of its float64 layout.
func int8Values(isValue func(string) bool) func(string) bool {
	return func(name string) bool {
		for _, suffix := range []string{".int8", ".scale", ".float32"} {
			if weight, ok := strings.CutSuffix(name, suffix); ok && isWeight(weight) {
				return isValue(weight)
			}
		}
		return isValue(name) && !isWeight(name)
	}
}

// readWeights reads a weight as the graph computes with it. In int8 that is a product of an int8 and a float32 number, which is exact in
// float64 (rule Q1).
func (r *valueReader) readWeights(name string, shape ...int) []float64 {
	if !r.int8 {
		return r.read(name, shape...)
	}
	narrow := valueReader{model: r.model, elemType: typeFloat32, err: r.err}
	if len(shape) == 1 {
		values := narrow.read(name+".float32", shape...)
		r.err = narrow.err
		return values
	}
	columns := shape[len(shape)-1]
	scale := narrow.read(name+".scale", columns)
	if r.err = narrow.err; r.err != nil {
		return nil
	}
	units, err := r.model.int8s(name+".int8", shape)
	if err != nil {
		r.err = err
		return nil
	}
	for c, s := range scale {
		if !(s > 0) {
			r.err = fmt.Errorf("%s.scale[%d] is %v, not above 0", name, c, s)
			return nil
		}
	}
	values := make([]float64, len(units))
	for i, unit := range units {
		if unit < -largestInt8 {
			r.err = fmt.Errorf("%s.int8[%d] is %d, below -%d", name, i, unit, largestInt8)
			return nil
		}
		values[i] = float64(unit) * scale[i%columns]
	}
	return values
}

// int8s reads an int8 initializer of a shape.
func (m *onnxModel) int8s(name string, shape []int) ([]int64, error) {
	t := m.initializers[name]
	if t == nil {
		return nil, fmt.Errorf("no initializer %s", name)
	}
	dims := make([]int64, len(shape))
	for i, d := range shape {
		dims[i] = int64(d)
	}
	if t.elemType != typeInt8 || !slices.Equal(t.dims, dims) {
		return nil, fmt.Errorf("%s is %s%s, not int8%s", name, typeName(t.elemType), dimsText(t.dims), dimsText(dims))
	}
	if !t.hasRaw { // other forms can hold numbers beyond int8, of which nobody knows what they mean
		return nil, fmt.Errorf("%s is not stored as raw bytes", name)
	}
	return t.int64s()
}
