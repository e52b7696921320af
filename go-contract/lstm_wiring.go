package anomaly

import (
	"fmt"
	"slices"
	"strings"
)

// lstmWiring is layout lstm.v1, unrolled over timesteps (rules S1, LA1 to LA8, G1).
func lstmWiring(timesteps, features int, units [4]int) []string {
	initializers := scoreInitializers(timesteps, features)
	nodes, inputs := stepNodes(initializers, timesteps)
	in := features
	for i, layer := range lstmLayerNames {
		addLayerInitializers(initializers, layer, in, units[i])
		in = units[i]
	}
	initializers["dense.kernel"] = fmt.Sprintf("float64[%d,%d]", in, features)
	initializers["dense.bias"] = fmt.Sprintf("float64[%d]", features)

	for _, layer := range lstmLayerNames {
		if layer == "decoder_1" { // the bottleneck is its input at every step (LA1)
			for t := range inputs {
				inputs[t] = inputs[timesteps-1]
			}
		}
		nodes = append(nodes, layerNodes(layer, inputs)...)
		inputs = hiddenNames(layer, timesteps)
	}
	rows := make([]string, timesteps)
	for t, h := range inputs {
		rows[t] = h + "/row"
		nodes = append(nodes, fmt.Sprintf("Unsqueeze(%s,axis_1)->(%s)", h, rows[t]))
	}
	return windowWiring(timesteps, features, initializers,
		nodes,
		[]string{
			fmt.Sprintf("Concat(%s)->(decoded){axis=1}", strings.Join(rows, ",")),
			"MatMul(decoded,dense.kernel)->(dense/product)",
			"Add(dense/product,dense.bias)->(reconstructed)",
		},
		scoreNodes("scaled"),
	)
}

// The parts that the unrolled layouts lstm.v1 and classifier.v1 share.

// stepNodes are the nodes that take the scaled window apart, and what they give. Their constants go to initializers.
func stepNodes(initializers map[string]string, timesteps int) (nodes, steps []string) {
	for t := range timesteps {
		initializers[fmt.Sprintf("step_%d", t)] = fmt.Sprintf("int64[]=[%d]", t)
		steps = append(steps, fmt.Sprintf("scaled/%d", t))
		nodes = append(nodes, fmt.Sprintf("Gather(scaled,step_%d)->(%s){axis=1}", t, steps[t]))
	}
	return nodes, steps
}

// hiddenNames are the outputs of an LSTM layer at every step.
func hiddenNames(layer string, timesteps int) (names []string) {
	for t := range timesteps {
		names = append(names, fmt.Sprintf("%s/%d/hidden", layer, t))
	}
	return names
}

// addLayerInitializers adds those of one LSTM layer.
func addLayerInitializers(initializers map[string]string, layer string, in, units int) {
	initializers[layer+".kernel"] = fmt.Sprintf("float64[%d,%d]", in, 4*units)
	initializers[layer+".recurrent"] = fmt.Sprintf("float64[%d,%d]", units, 4*units)
	initializers[layer+".bias"] = fmt.Sprintf("float64[%d]", 4*units)
	initializers[layer+"/gates"] = fmt.Sprintf("int64[3]=[%d %d %d]", units, units, units)
	initializers[layer+"/gates_and_candidate"] = fmt.Sprintf("int64[2]=[%d %d]", 3*units, units)
}

// layerNodes are the nodes of one LSTM layer (LA3). The first step has no state before it: no recurrent part, nothing to forget.
func layerNodes(layer string, inputs []string) []string {
	lines := []string{fmt.Sprintf("Concat(%s.kernel,%s.recurrent)->(%s/weights){axis=0}", layer, layer, layer)}
	cell := ""
	for t, x := range inputs {
		at := fmt.Sprintf("%s/%d", layer, t)
		if t == 0 {
			lines = append(lines, fmt.Sprintf("MatMul(%s,%s.kernel)->(%s/product)", x, layer, at))
		} else {
			lines = append(lines,
				fmt.Sprintf("Concat(%s,%s/%d/hidden)->(%s/input){axis=1}", x, layer, t-1, at),
				fmt.Sprintf("MatMul(%s/input,%s/weights)->(%s/product)", at, layer, at))
		}
		lines = append(lines,
			fmt.Sprintf("Add(%s/product,%s.bias)->(%s/total)", at, layer, at),
			fmt.Sprintf("Split(%s/total,%s/gates_and_candidate)->(%s/gates_total,%s/candidate_total){axis=1}", at, layer, at, at),
			fmt.Sprintf("Sigmoid(%s/gates_total)->(%s/gates)", at, at),
			fmt.Sprintf("Split(%s/gates,%s/gates)->(%s/i,%s/f,%s/o){axis=1}", at, layer, at, at, at),
			fmt.Sprintf("Tanh(%s/candidate_total)->(%s/candidate)", at, at),
			fmt.Sprintf("Mul(%s/i,%s/candidate)->(%s/new)", at, at, at))
		if t == 0 {
			cell = at + "/new"
		} else {
			lines = append(lines,
				fmt.Sprintf("Mul(%s/f,%s)->(%s/kept)", at, cell, at),
				fmt.Sprintf("Add(%s/kept,%s/new)->(%s/cell)", at, at, at))
			cell = at + "/cell"
		}
		lines = append(lines,
			fmt.Sprintf("Tanh(%s)->(%s/tanh_cell)", cell, at),
			fmt.Sprintf("Mul(%s/o,%s/tanh_cell)->(%s/hidden)", at, at, at))
	}
	return lines
}

// The parts that the layouts lstm.v1 and lstm.float32.v1 share.

func scoreInitializers(timesteps, features int) map[string]string {
	all := sharedInitializers(features)
	all["count"] = fmt.Sprintf("float64[]=[%v]", float64(timesteps*features))
	all["last_step"] = fmt.Sprintf("int64[]=[%d]", timesteps-1)
	all["over_time"] = "int64[1]=[1]"
	return all
}

// scoreNodes are LA5 to LA8, from the scaled window and its reconstruction.
func scoreNodes(scaled string) []string {
	return slices.Concat(
		[]string{
			fmt.Sprintf("Sub(%s,reconstructed)->(difference)", scaled),
			"Mul(difference,difference)->(squared)",
			"ReduceSum(squared,over_time)->(errors){keepdims=0}",
			sumNode("errors", "over_time"),
			"Div(errors/total,count)->(score/column)",
		},
		decisionNodes("over_time"), divisionNodes("errors"),
		[]string{
			"Gather(reconstructed,last_step)->(last){axis=1}",
			"Mul(last,scaler_scale)->(last/unscaled)",
			"Add(last/unscaled,scaler_mean)->(expected/float64)",
			"Cast(expected/float64)->(expected){to=1}",
		},
	)
}
