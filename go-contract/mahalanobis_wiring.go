package anomaly

import (
	"fmt"
	"math"
)

// mahalanobisValues are the initializers of layout mahalanobis.v1 that hold values of the model.
var mahalanobisValues = within(
	"scaler_mean", "scaler_scale", "threshold", "row_factor", "window_factor", "regression", "precision", "limit_start", "limit_slope",
)

// mahalanobisWiring is layout mahalanobis.v1 (rules S1, MD1 to MD6, G1). timesteps is 1 for a model of single samples.
func mahalanobisWiring(timesteps, features int) []string {
	size := timesteps * features
	vector := fmt.Sprintf("float64[%d]", features)
	initializers := map[string]string{
		"largest":     fmt.Sprintf("float64[]=[%v]", float64(math.MaxFloat32)),
		"limit_slope": vector,
		"limit_start": vector,
		"precision":   vector,
		"regression":  fmt.Sprintf("float64[%d,%d]", size, features),
		"row_count":   fmt.Sprintf("float64[]=[%v]", float64(features)),
		"row_factor":  fmt.Sprintf("float64[%d,%d]", features, features),
		"share_steps": fmt.Sprintf("float64[]=[%v]", float64(shareSteps)),
	}
	if timesteps == 1 {
		return sampleWiring(features, initializers,
			meanSquareNodes("scaled", "row"),
			[]string{"Sqrt(row/squared)->(distance)"},
			limitNodes("scaled"), decisionNodes("axis_1"), explanationNodes("scaled", "scaled"),
		)
	}
	initializers["last_step"] = fmt.Sprintf("int64[]=[%d]", timesteps-1)
	initializers["two"] = "float64[]=[2]"
	initializers["window_count"] = fmt.Sprintf("float64[]=[%v]", float64(size))
	initializers["window_factor"] = fmt.Sprintf("float64[%d,%d]", size, size)
	return windowWiring(timesteps, features, initializers,
		[]string{
			"Flatten(scaled)->(window){axis=1}",
			"Gather(scaled,last_step)->(last){axis=1}",
		},
		meanSquareNodes("last", "row"),
		meanSquareNodes("window", "window"),
		[]string{
			"Add(row/squared,window/squared)->(distance/both)",
			"Div(distance/both,two)->(distance/squared)",
			"Sqrt(distance/squared)->(distance)",
		},
		limitNodes("last"), decisionNodes("axis_1"), explanationNodes("window", "last"),
	)
}

// meanSquareNodes are d_row or d_window of MD2, from the scaled values and the name of the factor.
func meanSquareNodes(values, name string) []string {
	return []string{
		fmt.Sprintf("MatMul(%s,%s_factor)->(%s/product)", values, name, name),
		fmt.Sprintf("Mul(%s/product,%s/product)->(%s/squares)", name, name, name),
		fmt.Sprintf("ReduceSum(%s/squares,axis_1)->(%s/sum){keepdims=1}", name, name),
		fmt.Sprintf("Div(%s/sum,%s_count)->(%s/squared)", name, name, name),
	}
}

// limitNodes are MD3, from the name of the last sample. A term that is not above 0 counts as 0.
func limitNodes(last string) []string {
	return []string{
		fmt.Sprintf("Sub(%s,limit_start)->(limit/beyond)", last),
		"Mul(limit/beyond,limit_slope)->(limit/terms)",
		"Greater(limit/terms,zero)->(limit/any)",
		"Where(limit/any,limit/terms,zero)->(limit/positive)",
		"ReduceMax(limit/positive,axis_1)->(limit){keepdims=1}",
		"Max(distance,limit)->(score/unbounded)",
		"Min(score/unbounded,largest)->(score/column)",
	}
}

// explanationNodes are MD4 and MD5, from the names of the window and its last sample.
func explanationNodes(window, last string) []string {
	nodes := []string{
		fmt.Sprintf("MatMul(%s,regression)->(expected/scaled)", window),
		fmt.Sprintf("Sub(%s,expected/scaled)->(expected/missed)", last),
		"Mul(expected/missed,expected/missed)->(expected/squared)",
		"Mul(expected/squared,precision)->(gains)",
		"Greater(limit,distance)->(limit/decides)",
		"Where(limit/decides,limit/positive,gains)->(parts)",
	}
	nodes = append(nodes, roundedShareNodes("parts")...)
	return append(nodes,
		"Mul(expected/scaled,scaler_scale)->(expected/unscaled)",
		"Add(expected/unscaled,scaler_mean)->(expected/raw)",
		"Cast(expected/raw)->(expected){to=1}",
	)
}
