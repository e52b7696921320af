package anomaly

import "fmt"

// neighborValues are the initializers of layout neighbors.v1 that hold values of the model.
var neighborValues = within("scaler_mean", "scaler_scale", "threshold", "rows", "k_distance", "density")

// neighborWiring is layout neighbors.v1 (rules S1, LF1 to LF7, G1).
func neighborWiring(features, rows, nNeighbors int) []string {
	distances, squared := distanceNodes(features)
	return sampleWiring(features,
		map[string]string{
			"count":       fmt.Sprintf("float64[]=[%v]", float64(nNeighbors)),
			"density":     fmt.Sprintf("float64[%d]", rows),
			"k_distance":  fmt.Sprintf("float64[%d]", rows),
			"neighbors":   fmt.Sprintf("int64[1]=[%d]", nNeighbors),
			"reach_floor": fmt.Sprintf("float64[]=[%v]", reachFloor),
			"rows":        fmt.Sprintf("float64[%d,%d]", rows, features),
		},
		distances,
		[]string{
			fmt.Sprintf("TopK(%s,neighbors)->(nearest/squared,nearest/index){axis=1,largest=0,sorted=1}", squared),
			"Sqrt(nearest/squared)->(nearest/distance)",
			"Gather(k_distance,nearest/index)->(nearest/k_distance){axis=0}",
			"Max(nearest/k_distance,nearest/distance)->(reach)",
			"ReduceSum(reach,axis_1)->(reach/sum){keepdims=1}",
			"Div(reach/sum,count)->(reach/mean)",
			"Add(reach/mean,reach_floor)->(reach/raised)",
			"Gather(density,nearest/index)->(nearest/density){axis=0}",
			"ReduceSum(nearest/density,axis_1)->(nearest/density/sum){keepdims=1}",
			"Div(nearest/density/sum,count)->(nearest/density/mean)",
			"Mul(nearest/density/mean,reach/raised)->(score/column)",
		},
		decisionNodes("axis_1"),
		[]string{
			"Gather(rows/scaled,nearest/index)->(nearest/scaled){axis=0}",
			"Unsqueeze(scaled,axis_1)->(scaled/1)",
			"Sub(scaled/1,nearest/scaled)->(apart)",
			"Mul(apart,apart)->(apart/squared)",
			"ReduceSum(apart/squared,axis_1)->(errors){keepdims=0}",
		},
		shareNodes("errors"),
		[]string{
			"Gather(rows,nearest/index)->(nearest/rows){axis=0}",
			"ReduceSum(nearest/rows,axis_1)->(nearest/rows/sum){keepdims=0}",
			"Div(nearest/rows/sum,count)->(nearest/rows/mean)",
			"Cast(nearest/rows/mean)->(expected){to=1}",
		},
	)
}
