package anomaly

import (
	"fmt"
	"math"
)

// denseValues are the initializers of layout dense.v1 that hold values of the model.
func denseValues(layers int) func(string) bool {
	values := []string{"scaler_mean", "scaler_scale", "threshold"}
	for i := range layers {
		values = append(values, denseLayerName(i)+".kernel", denseLayerName(i)+".bias")
	}
	return within(values...)
}

// denseLayerName is the name of layer i, counted from 0.
func denseLayerName(i int) string { return fmt.Sprintf("layer_%d", i+1) }

// denseWiring is layout dense.v1 (rules S1, DA1 to DA6, G1). units are the widths of all layers, that of the output last.
func denseWiring(features int, activation string, units []int) []string {
	initializers := map[string]string{
		"count":   fmt.Sprintf("float64[]=[%v]", float64(features)),
		"largest": fmt.Sprintf("float64[]=[%v]", float64(math.MaxFloat32)),
	}
	operator := map[string]string{activationReLU: "Relu", activationTanh: "Tanh"}[activation]
	var layers []string
	x, in := "scaled", features
	for i, out := range units {
		name := denseLayerName(i)
		initializers[name+".kernel"] = fmt.Sprintf("float64[%d,%d]", in, out)
		initializers[name+".bias"] = fmt.Sprintf("float64[%d]", out)
		layers = append(layers, fmt.Sprintf("MatMul(%s,%s.kernel)->(%s/product)", x, name, name))
		if i == len(units)-1 {
			layers = append(layers, fmt.Sprintf("Add(%s/product,%s.bias)->(reconstructed)", name, name))
			break
		}
		layers = append(layers,
			fmt.Sprintf("Add(%s/product,%s.bias)->(%s/sum)", name, name, name),
			fmt.Sprintf("%s(%s/sum)->(%s)", operator, name, name))
		x, in = name, out
	}
	return sampleWiring(features, initializers,
		layers,
		[]string{
			"Sub(scaled,reconstructed)->(difference)",
			"Mul(difference,difference)->(errors)",
		},
		shareNodes("errors"),
		[]string{
			"Div(errors/total,count)->(score/mean)",
			"Min(score/mean,largest)->(score/column)",
		},
		decisionNodes("axis_1"),
		[]string{
			"Mul(reconstructed,scaler_scale)->(expected/unscaled)",
			"Add(expected/unscaled,scaler_mean)->(expected/float64)",
			"Cast(expected/float64)->(expected){to=1}",
		},
	)
}
