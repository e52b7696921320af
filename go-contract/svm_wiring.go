package anomaly

import "fmt"

// svmValues are the initializers of layout svm.v1 that hold values of the model.
var svmValues = within(
	"scaler_mean", "scaler_scale", "threshold", "rows", "alpha", "gamma", "reference_scaled", "reference_values",
)

// svmWiring is layout svm.v1 (rules S1, SV1 to SV6, G1).
func svmWiring(features, supportVectors int) []string {
	distances, squared := distanceNodes(features)
	return sampleWiring(features,
		map[string]string{
			"alpha":            fmt.Sprintf("float64[%d]", supportVectors),
			"gamma":            "float64[]",
			"half":             "float64[]=[0.5]",
			"inside_floor":     fmt.Sprintf("float64[]=[%v]", insideFloor),
			"one":              "float64[]=[1]",
			"reference_scaled": fmt.Sprintf("float64[%d]", features),
			"reference_values": fmt.Sprintf("float32[%d]", features),
			"rows":             fmt.Sprintf("float64[%d,%d]", supportVectors, features),
		},
		distances,
		[]string{
			fmt.Sprintf("Mul(%s,gamma)->(exponent)", squared),
			"Neg(exponent)->(exponent/negative)",
			"Exp(exponent/negative)->(kernel)",
			"Mul(exponent,half)->(exponent/half)",
			"Tanh(exponent/half)->(complement/tanh)",
			"Add(kernel,one)->(kernel/1)",
			"Mul(complement/tanh,kernel/1)->(complement)",
			"Unsqueeze(alpha,axis_1)->(alpha/column)",
			"MatMul(kernel,alpha/column)->(inside)",
			"MatMul(complement,alpha/column)->(outside)",
			"Max(inside,inside_floor)->(inside/raised)",
			"Div(outside,inside/raised)->(score/column)",
		},
		decisionNodes("axis_1"),
		[]string{
			"Sub(scaled,reference_scaled)->(apart)",
			"Mul(apart,apart)->(errors)",
		},
		shareNodes("errors"),
		[]string{
			"Shape(samples)->(samples/shape)",
			"Expand(reference_values,samples/shape)->(expected)",
		},
	)
}
