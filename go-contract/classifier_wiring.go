package anomaly

import "fmt"

// classifierValues are the initializers of layout classifier.v1 that hold values of the model.
var classifierValues = within(
	"scaler_mean", "scaler_scale", "threshold", "reference_scaled", "reference_values",
	"lstm_1.kernel", "lstm_1.recurrent", "lstm_1.bias", "lstm_2.kernel", "lstm_2.recurrent", "lstm_2.bias",
	"dense_1.kernel", "dense_1.bias", "output.kernel", "output.bias",
)

// classifierWiring is layout classifier.v1, unrolled over timesteps (rules S1, LC1 to LC6, G1). units are those of lstm_1, lstm_2 and
// dense_1.
func classifierWiring(timesteps, features int, units [3]int) []string {
	initializers := map[string]string{
		"one":              "float64[]=[1]",
		"reference_scaled": fmt.Sprintf("float64[%d]", features),
		"reference_values": fmt.Sprintf("float32[%d]", features),
		"dense_1.kernel":   fmt.Sprintf("float64[%d,%d]", units[1], units[2]),
		"dense_1.bias":     fmt.Sprintf("float64[%d]", units[2]),
		"output.kernel":    fmt.Sprintf("float64[%d,1]", units[2]),
		"output.bias":      "float64[1]",
	}
	nodes, inputs := stepNodes(initializers, timesteps)
	in := features
	for i, layer := range classifierLayerNames {
		addLayerInitializers(initializers, layer, in, units[i])
		in = units[i]
		nodes = append(nodes, layerNodes(layer, inputs)...)
		inputs = hiddenNames(layer, timesteps)
	}
	return windowWiring(timesteps, features, initializers,
		nodes,
		[]string{
			fmt.Sprintf("MatMul(%s,dense_1.kernel)->(dense_1/product)", inputs[timesteps-1]),
			"Add(dense_1/product,dense_1.bias)->(dense_1/sum)",
			"Relu(dense_1/sum)->(dense_1)",
			"MatMul(dense_1,output.kernel)->(output/product)",
			"Add(output/product,output.bias)->(output/sum)",
			// The sigmoid is written out: ONNX Runtime's operator cancels where it is small.
			"Neg(output/sum)->(output/negative)",
			"Exp(output/negative)->(output/exp)",
			"Add(output/exp,one)->(output/divisor)",
			"Div(one,output/divisor)->(score/column)",
		},
		decisionNodes("axis_1"),
		[]string{
			"Sub(scaled,reference_scaled)->(apart)",
			"Mul(apart,apart)->(squared)",
			"ReduceSum(squared,axis_1)->(errors){keepdims=0}",
		},
		shareNodes("errors"),
		[]string{
			"Shape(errors)->(errors/shape)",
			"Expand(reference_values,errors/shape)->(expected)",
		},
	)
}
