package anomaly

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Parts of wirings that several layouts share.

// sampleWiring is the wiring of a layout that scores one sample: inputs and outputs (rule G1), the initializers that all of them have
// and those given, then nodes, the scaling of the samples first.
func sampleWiring(features int, initializers map[string]string, nodes ...[]string) []string {
	return scoringWiring(fmt.Sprintf("[?,%d]", features), features, initializers, nodes)
}

// windowWiring is sampleWiring for a layout that scores a window.
func windowWiring(timesteps, features int, initializers map[string]string, nodes ...[]string) []string {
	return scoringWiring(fmt.Sprintf("[?,%d,%d]", timesteps, features), features, initializers, nodes)
}

func scoringWiring(shape string, features int, initializers map[string]string, nodes [][]string) []string {
	all := sharedInitializers(features)
	all["axis_1"] = "int64[1]=[1]"
	maps.Copy(all, initializers)
	head := []string{"opset =21", "opset ai.onnx.ml=5", "input samples float64" + shape}
	return slices.Concat(
		head, scoreOutputs(features), initializerLines(all), scaleNodes("samples", "scaled"), slices.Concat(nodes...),
	)
}

// sharedInitializers are those of all layouts but the forest's.
func sharedInitializers(features int) map[string]string {
	return map[string]string{
		"clamp_high":   "float64[]=[1e+15]",
		"clamp_low":    "float64[]=[-1e+15]",
		"scaler_mean":  fmt.Sprintf("float64[%d]", features),
		"scaler_scale": fmt.Sprintf("float64[%d]", features),
		"threshold":    "float64[]",
		"zero":         "float64[]=[0]",
	}
}

// scoreOutputs are the outputs of all layouts but the forest's (rule G1).
func scoreOutputs(features int) []string {
	return []string{
		"output score float32[?]",
		"output is_anomaly bool[?]",
		fmt.Sprintf("output contributions float32[?,%d]", features),
		fmt.Sprintf("output expected float32[?,%d]", features),
	}
}

// scaleNodes are S1.
func scaleNodes(input, output string) []string {
	return []string{
		fmt.Sprintf("Sub(%s,scaler_mean)->(%s/centred)", input, output),
		fmt.Sprintf("Div(%s/centred,scaler_scale)->(%s/unclamped)", output, output),
		fmt.Sprintf("Clip(%s/unclamped,clamp_low,clamp_high)->(%s)", output, output),
	}
}

// distanceNodes are LF1: the squared distances of the samples from the rows, feature by feature in schema order. They also give the
// name of the last sum.
func distanceNodes(features int) (nodes []string, squared string) {
	samples, rows := make([]string, features), make([]string, features)
	for j := range features {
		samples[j], rows[j] = fmt.Sprintf("distance/%d/sample", j), fmt.Sprintf("distance/%d/row", j)
	}
	nodes = append(scaleNodes("rows", "rows/scaled"),
		"Transpose(rows/scaled)->(rows/columns){perm=[1 0]}",
		fmt.Sprintf("Split(scaled)->(%s){axis=1,num_outputs=%d}", strings.Join(samples, ","), features),
		fmt.Sprintf("Split(rows/columns)->(%s){axis=0,num_outputs=%d}", strings.Join(rows, ","), features),
	)
	for j := range features {
		at := fmt.Sprintf("distance/%d", j)
		nodes = append(nodes,
			fmt.Sprintf("Sub(%s,%s)->(%s/difference)", samples[j], rows[j], at),
			fmt.Sprintf("Mul(%s/difference,%s/difference)->(%s/square)", at, at, at))
		if j == 0 {
			squared = at + "/square"
			continue
		}
		nodes = append(nodes, fmt.Sprintf("Add(%s,%s/square)->(%s/sum)", squared, at, at))
		squared = at + "/sum"
	}
	return nodes, squared
}

// decisionNodes are P1 and D1, from a column of scores. axis is the name of a constant that is 1.
func decisionNodes(axis string) []string {
	return []string{
		fmt.Sprintf("Squeeze(score/column,%s)->(score/float64)", axis),
		"Cast(score/float64)->(score){to=1}",
		"Cast(score)->(score/published){to=11}",
		"Greater(score/published,threshold)->(is_anomaly)",
	}
}

// shareNodes are the shares of the parts in their sum, 0 where the sum is 0 (rules DA4, LF5, SV4, LC4, MD5). parts is the name of the
// parts.
func shareNodes(parts string) []string {
	return slices.Concat([]string{sumNode(parts, "axis_1")}, divisionNodes(parts))
}

// sumNode is the sum of the parts of a score.
func sumNode(parts, axis string) string {
	return fmt.Sprintf("ReduceSum(%s,%s)->(errors/total){keepdims=1}", parts, axis)
}

// divisionNodes are the parts divided by their sum.
func divisionNodes(parts string) []string {
	return []string{
		fmt.Sprintf("Div(%s,errors/total)->(share/unguarded)", parts),
		"Equal(errors/total,zero)->(errors/none)",
		"Where(errors/none,zero,share/unguarded)->(share)",
		"Cast(share)->(contributions){to=1}",
	}
}

// roundedShareNodes are shareNodes with the shares rounded to multiples of 1 / share_steps (rule MD5).
func roundedShareNodes(parts string) []string {
	nodes := shareNodes(parts)
	return append(nodes[:len(nodes)-1],
		"Mul(share,share_steps)->(share/steps)",
		"Round(share/steps)->(share/whole)",
		"Div(share/whole,share_steps)->(share/rounded)",
		"Cast(share/rounded)->(contributions){to=1}",
	)
}
