package anomaly

import (
	"fmt"
	"math"
)

// mahalanobisValues are the initializers of layout mahalanobis.v1 that hold values of the model.
var mahalanobisValues = within(
	"scaler_mean", "scaler_scale", "threshold", "row_factor", "window_factor", "regression", "precision", "limit_start", "limit_slope",
)

// mahalanobisWiring is layout mahalanobis.v1 (rules S1, MD1 to MD6, G1). windowed says that samples come in windows, be it of one.
func mahalanobisWiring(timesteps, features int, windowed bool) []string {
	size := timesteps * features
	vector := fmt.Sprintf("float64[%d]", features)
	initializers := map[string]string{
		"count":       fmt.Sprintf("float64[]=[%v]", float64(features)),
		"largest":     fmt.Sprintf("float64[]=[%v]", float64(math.MaxFloat32)),
		"limit_slope": vector,
		"limit_start": vector,
		"precision":   vector,
		"regression":  fmt.Sprintf("float64[%d,%d]", size, features),
		"row_factor":  fmt.Sprintf("float64[%d,%d]", features, features),
	}
	all, row := "scaled", "scaled"
	var parts, root []string
	if windowed {
		all, row = "window", "row"
		initializers["window_shape"] = fmt.Sprintf("int64[2]=[-1 %d]", size)
		initializers["last"] = fmt.Sprintf("int64[]=[%d]", timesteps-1)
		parts = []string{
			"Reshape(scaled,window_shape)->(window)",
			"Gather(scaled,last)->(row){axis=1}",
		}
	}
	parts = append(parts, squaredLengthNodes("row", row, "count")...)
	root = []string{"Sqrt(row/mean)->(distance)"}
	if timesteps > 1 {
		initializers["window_factor"] = fmt.Sprintf("float64[%d,%d]", size, size)
		initializers["window_count"] = fmt.Sprintf("float64[]=[%v]", float64(size))
		initializers["two"] = "float64[]=[2]"
		parts = append(parts, squaredLengthNodes("window", all, "window_count")...)
		root = []string{
			"Add(row/mean,window/mean)->(distance/sum)",
			"Div(distance/sum,two)->(distance/squared)",
			"Sqrt(distance/squared)->(distance)",
		}
	}
	nodes := [][]string{
		parts, root,
		{
			fmt.Sprintf("Sub(%s,limit_start)->(limit/beyond)", row),
			"Mul(limit_slope,limit/beyond)->(limit/scores)",
			"ReduceMax(limit/scores,axis_1)->(limit){keepdims=1}",
			"Max(distance,limit)->(score/unbounded)",
			"Min(score/unbounded,largest)->(score/column)",
		},
		decisionNodes("axis_1"),
		{
			fmt.Sprintf("MatMul(%s,regression)->(expected/scaled)", all),
			fmt.Sprintf("Sub(%s,expected/scaled)->(difference)", row),
			"Mul(difference,difference)->(difference/square)",
			"Mul(precision,difference/square)->(gain)",
			"Max(limit/scores,zero)->(limit/parts)",
			"Greater(limit,distance)->(limited)",
			"Where(limited,limit/parts,gain)->(errors)",
		},
		shareNodes(),
		{
			"Mul(expected/scaled,scaler_scale)->(expected/unscaled)",
			"Add(expected/unscaled,scaler_mean)->(expected/float64)",
			"Cast(expected/float64)->(expected){to=1}",
		},
	}
	if windowed {
		return windowWiring(timesteps, features, initializers, nodes...)
	}
	return sampleWiring(features, initializers, nodes...)
}

// squaredLengthNodes are d_row or d_window of MD2.
func squaredLengthNodes(name, values, count string) []string {
	return []string{
		fmt.Sprintf("MatMul(%s,%s_factor)->(%s/whitened)", values, name, name),
		fmt.Sprintf("Mul(%s/whitened,%s/whitened)->(%s/squares)", name, name, name),
		fmt.Sprintf("ReduceSum(%s/squares,axis_1)->(%s/total){keepdims=1}", name, name),
		fmt.Sprintf("Div(%s/total,%s)->(%s/mean)", name, count, name),
	}
}
