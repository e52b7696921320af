package anomaly

import (
	"fmt"
	"slices"
	"strings"
)

// forestValues are the initializers of layout forest.v1 that hold values of the model.
var forestValues = within("scaler_mean", "scaler_scale", "reference_scaled", "reference_values", "score_rate", "depth_threshold")

// forestWiring is layout forest.v1 for a number of features (rules S1, IF1 to IF8, G1).
func forestWiring(features int) []string {
	lines := []string{
		"opset =21",
		"opset ai.onnx.ml=5",
		fmt.Sprintf("input samples float64[?,%d]", features),
		fmt.Sprintf("input occlusion bool[?,%d]", features),
		"output score float32[?]",
		"output is_anomaly bool[?]",
		"output contributions float32[?,?]",
		fmt.Sprintf("output expected float32[?,%d]", features),
		"output depth_sum float64[?]",
	}
	lines = append(lines, initializerLines(map[string]string{
		"any":              "int64[1]=[-1]",
		"axis_1":           "int64[1]=[1]",
		"clamp_high":       "float64[]=[1e+15]",
		"clamp_low":        "float64[]=[-1e+15]",
		"depth_threshold":  "float64[]",
		"from_0":           "int64[1]=[0]",
		"from_1":           "int64[1]=[1]",
		"occlusion":        fmt.Sprintf("bool[%d,%d]=%v", features+1, features, occlusionDefault(features)),
		"reference_scaled": fmt.Sprintf("float64[%d]", features),
		"reference_values": fmt.Sprintf("float32[%d]", features),
		"rows_shape":       fmt.Sprintf("int64[2]=[-1 %d]", features),
		"scaler_mean":      fmt.Sprintf("float64[%d]", features),
		"scaler_scale":     fmt.Sprintf("float64[%d]", features),
		"score_rate":       "float64[]",
		"to_1":             "int64[1]=[1]",
		"to_end":           "int64[1]=[2147483648]",
		"two":              "float64[]=[2]",
		"zero":             "float64[]=[0]",
	})...)
	return append(lines, strings.Split(strings.TrimSpace(forestNodes), "\n")...)
}

// forestNodes are the nodes of layout forest.v1. They are the same for every forest.
const forestNodes = `
Sub(samples,scaler_mean)->(scaled/centred)
Div(scaled/centred,scaler_scale)->(scaled/unclamped)
Clip(scaled/unclamped,clamp_low,clamp_high)->(scaled)
Unsqueeze(scaled,axis_1)->(scaled/1)
Where(occlusion,reference_scaled,scaled/1)->(copies)
Cast(copies)->(copies/float32){to=1}
Cast(copies/float32)->(copies/float64){to=11}
Reshape(copies/float64,rows_shape)->(copies/rows)
ai.onnx.ml.TreeEnsemble(copies/rows)->(depth/rows){aggregate_function=1,n_targets=1,post_transform=0}
Shape(occlusion)->(groups){end=1,start=0}
Concat(any,groups)->(depth/shape){axis=0}
Reshape(depth/rows,depth/shape)->(depth/copies)
Slice(depth/copies,from_0,to_1,axis_1)->(depth/column)
Reshape(depth/column,any)->(depth_sum)
Less(depth_sum,depth_threshold)->(is_anomaly)
Mul(depth_sum,score_rate)->(exponent)
Pow(two,exponent)->(score/float64)
Cast(score/float64)->(score){to=1}
Slice(depth/copies,from_1,to_end,axis_1)->(depth/replaced)
Sub(depth/replaced,depth/column)->(gain/signed)
Relu(gain/signed)->(gain)
ReduceSum(gain,axis_1)->(gain/sum){keepdims=1}
Slice(occlusion,from_1,to_end,from_0)->(masks/bool)
Cast(masks/bool)->(masks){to=11}
Transpose(masks)->(masks/transposed){perm=[1 0]}
Mul(scaled,scaled)->(squares)
MatMul(squares,masks/transposed)->(distance)
ReduceSum(distance,axis_1)->(distance/sum){keepdims=1}
Equal(gain/sum,zero)->(gain/none)
Where(gain/none,distance,gain)->(part)
Where(gain/none,distance/sum,gain/sum)->(whole)
Div(part,whole)->(share/unguarded)
Equal(whole,zero)->(whole/none)
Where(whole/none,zero,share/unguarded)->(share)
Cast(share)->(contributions){to=1}
Shape(samples)->(samples/shape)
Expand(reference_values,samples/shape)->(expected)
`

// occlusionDefault is the default of the input `occlusion`: nothing replaced, then one feature at a time (rule G1).
func occlusionDefault(features int) []int64 {
	mask := make([]int64, (features+1)*features)
	for j := range features {
		mask[(j+1)*features+j] = 1
	}
	return mask
}

// initializerLines are the lines of initializers, by name. Those with a value are constants of the layout.
func initializerLines(initializers map[string]string) []string {
	names := make([]string, 0, len(initializers))
	for name := range initializers {
		names = append(names, name)
	}
	slices.Sort(names)
	for i, name := range names {
		kind := "initializer "
		if strings.Contains(initializers[name], "=") {
			kind = "constant "
		}
		names[i] = kind + name + " " + initializers[name]
	}
	return names
}
