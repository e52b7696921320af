package anomaly

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// graphMutations change a graph so that it computes something else, or says something else than its metadata. The operator counts of
// the metadata follow, so that it is the audit behind them that has to notice.
var graphMutations = map[string]func(m *onnxModel){
	"operands swapped": func(m *onnxModel) { slices.Reverse(m.nodes[0].inputs) },
	"node inserted": func(m *onnxModel) {
		m.nodes[1].inputs[0] = "negated"
		m.nodes = slices.Insert(m.nodes, 1, onnxNode{opType: "Neg", inputs: []string{"scaled/centred"}, outputs: []string{"negated"}})
	},
	"scale in float32": func(m *onnxModel) {
		m.nodes[1].inputs[0] = "narrow"
		m.nodes = slices.Insert(m.nodes, 1, onnxNode{
			opType: "Cast", inputs: []string{"scaled/centred"}, outputs: []string{"narrow"},
			attributes: []onnxAttribute{{name: "to", kind: attrInt, i: typeFloat32}},
		})
	},
	"operator of another domain": func(m *onnxModel) { m.nodes[0].domain = "com.example" },
	"attribute changed": func(m *onnxModel) {
		for i := range m.nodes {
			if a := m.nodes[i].attribute("to"); a != nil {
				a.i = 10
				return
			}
		}
	},
	"attribute added": func(m *onnxModel) {
		m.nodes[0].attributes = append(m.nodes[0].attributes, onnxAttribute{name: "x", kind: attrInt})
	},
	"clamp moved":       func(m *onnxModel) { m.initializers["clamp_high"].setFloat64s(1e14) },
	"mean one bit off":  func(m *onnxModel) { m.initializers["scaler_mean"].raw[0] ^= 1 },
	"scale one bit off": func(m *onnxModel) { m.initializers["scaler_scale"].raw[0] ^= 1 },
	"initializer gone": func(m *onnxModel) {
		m.initializerNames = slices.DeleteFunc(m.initializerNames, func(n string) bool { return n == "scaler_mean" })
	},
	"initializer added": func(m *onnxModel) {
		m.initializers["more"] = &onnxTensor{name: "more", elemType: typeFloat64, raw: make([]byte, 8), hasRaw: true}
		m.initializerNames = append(m.initializerNames, "more")
	},
	"input renamed":      func(m *onnxModel) { m.inputs[0].name = "rows" },
	"input of float32":   func(m *onnxModel) { m.inputs[0].elemType = typeFloat32 },
	"output gone":        func(m *onnxModel) { m.outputs = m.outputs[1:] },
	"another opset":      func(m *onnxModel) { m.opsets[""] = 13 },
	"another layout":     func(m *onnxModel) { m.props["dwcp.layout"] = "forest.v2" },
	"another threshold":  func(m *onnxModel) { m.props["dwcp.threshold"] = "0.5" },
	"features reordered": func(m *onnxModel) { m.props["dwcp.features"] = "latency,bandwidth" },
}

func treeAttribute(m *onnxModel, name string) *onnxAttribute {
	for i := range m.nodes {
		if m.nodes[i].opType == "TreeEnsemble" {
			return m.nodes[i].attribute(name)
		}
	}
	panic("no TreeEnsemble")
}

func setFloat64(t *onnxTensor, i int, v float64) {
	values, err := t.float64s()
	if err != nil {
		panic(err)
	}
	values[i] = v
	t.setFloat64s(values...)
}

// forestMutations damage the trees of a forest.
var forestMutations = map[string]func(m *onnxModel){
	"cycle":                   func(m *onnxModel) { treeAttribute(m, "nodes_truenodeids").ints[1] = 0 },
	"child out of range":      func(m *onnxModel) { treeAttribute(m, "nodes_falsenodeids").ints[0] = 1 << 40 },
	"negative child":          func(m *onnxModel) { treeAttribute(m, "nodes_truenodeids").ints[0] = -1 },
	"feature out of range":    func(m *onnxModel) { treeAttribute(m, "nodes_featureids").ints[0] = 7 },
	"negative feature":        func(m *onnxModel) { treeAttribute(m, "nodes_featureids").ints[0] = -1 },
	"flag out of range":       func(m *onnxModel) { treeAttribute(m, "nodes_trueleafs").ints[0] = 2 },
	"other comparison":        func(m *onnxModel) { treeAttribute(m, "nodes_modes").t.raw[3] = 1 },
	"list too short":          func(m *onnxModel) { a := treeAttribute(m, "nodes_featureids"); a.ints = a.ints[1:] },
	"root gone":               func(m *onnxModel) { a := treeAttribute(m, "tree_roots"); a.ints = a.ints[1:] },
	"root twice":              func(m *onnxModel) { a := treeAttribute(m, "tree_roots"); a.ints[1] = a.ints[0] },
	"several targets":         func(m *onnxModel) { treeAttribute(m, "leaf_targetids").ints[0] = 1 },
	"average instead of sum":  func(m *onnxModel) { treeAttribute(m, "aggregate_function").i = 0 },
	"split not finite":        func(m *onnxModel) { setFloat64(treeAttribute(m, "nodes_splits").t, 5, math.NaN()) },
	"weight not finite":       func(m *onnxModel) { setFloat64(treeAttribute(m, "leaf_weights").t, 5, math.Inf(1)) },
	"weight off the grid":     func(m *onnxModel) { setFloat64(treeAttribute(m, "leaf_weights").t, 5, 1+math.Pow(2, -41)) },
	"negative weight":         func(m *onnxModel) { setFloat64(treeAttribute(m, "leaf_weights").t, 5, -1) },
	"sum of weights too high": func(m *onnxModel) { setFloat64(treeAttribute(m, "leaf_weights").t, 5, 8192) },
	"rate one bit off":        func(m *onnxModel) { m.initializers["score_rate"].raw[0] ^= 1 },
	"decision moved":          func(m *onnxModel) { m.initializers["depth_threshold"].raw[0] ^= 1 },
	"median moved":            func(m *onnxModel) { m.initializers["reference_values"].raw[0] ^= 1 },
	"scaled median moved":     func(m *onnxModel) { m.initializers["reference_scaled"].raw[0] ^= 1 },
	"occlusion changed":       func(m *onnxModel) { m.initializers["occlusion"].raw[0] = 1 },
}

var lstmMutations = map[string]func(m *onnxModel){
	"weight not finite":  func(m *onnxModel) { setFloat64(m.initializers["encoder_1.kernel"], 0, math.NaN()) },
	"shape transposed":   func(m *onnxModel) { slices.Reverse(m.initializers["encoder_1.kernel"].dims) },
	"threshold moved":    func(m *onnxModel) { m.initializers["threshold"].raw[0] ^= 1 },
	"mean over too few":  func(m *onnxModel) { m.initializers["count"].setFloat64s(69) },
	"step out of order":  func(m *onnxModel) { m.initializers["step_3"].raw[0] = 4 },
	"gates out of order": func(m *onnxModel) { swapOutputs(m, "Split", 3) },
}

var classifierMutations = map[string]func(m *onnxModel){
	"weight not finite":     func(m *onnxModel) { setFloat64(m.initializers["lstm_2.recurrent"], 0, math.NaN()) },
	"weight beyond float32": func(m *onnxModel) { setFloat64(m.initializers["dense_1.kernel"], 0, 2*math.MaxFloat32) },
	"bias beyond float32":   func(m *onnxModel) { setFloat64(m.initializers["output.bias"], 0, -1e39) },
	"shape transposed":      func(m *onnxModel) { slices.Reverse(m.initializers["output.kernel"].dims) },
	"threshold moved":       func(m *onnxModel) { m.initializers["threshold"].raw[0] ^= 1 },
	"step out of order":     func(m *onnxModel) { m.initializers["step_3"].raw[0] = 4 },
	"gates out of order":    func(m *onnxModel) { swapOutputs(m, "Split", 3) },
	"median moved":          func(m *onnxModel) { m.initializers["reference_values"].raw[0] ^= 1 },
	"scaled median moved":   func(m *onnxModel) { m.initializers["reference_scaled"].raw[0] ^= 1 },
	"one is two":            func(m *onnxModel) { m.initializers["one"].setFloat64s(2) },
	"other activation":      func(m *onnxModel) { nodeOf(m, "dense_1").opType = "Tanh" },
	"logit not negated":     func(m *onnxModel) { nodeOf(m, "output/negative").opType = "Identity" },
	"first state, not last": func(m *onnxModel) { nodeOf(m, "dense_1/product").inputs[0] = "lstm_2/0/hidden" },
}

// distanceMutations damage the distances of a graph (rule LF1).
var distanceMutations = map[string]func(m *onnxModel){
	"row not finite":         func(m *onnxModel) { setFloat64(m.initializers["rows"], 3, math.Inf(-1)) },
	"rows transposed":        func(m *onnxModel) { slices.Reverse(m.initializers["rows"].dims) },
	"a row too few":          func(m *onnxModel) { r := m.initializers["rows"]; r.dims[0]--; r.raw = r.raw[8*r.dims[1]:] },
	"features out of order":  func(m *onnxModel) { swapOutputs(m, "Split", 7) },
	"a square left out":      func(m *onnxModel) { nodeOf(m, "distance/2/sum").inputs[1] = "distance/1/square" },
	"another order of sums":  func(m *onnxModel) { slices.Reverse(nodeOf(m, "distance/3/sum").inputs) },
	"rows scaled by another": func(m *onnxModel) { nodeOf(m, "rows/scaled/unclamped").inputs[1] = "scaler_mean" },
	"split along rows":       func(m *onnxModel) { nodeOf(m, "distance/0/row").attribute("axis").i = 1 },
	"threshold moved":        func(m *onnxModel) { m.initializers["threshold"].raw[0] ^= 1 },
}

var neighborMutations = map[string]func(m *onnxModel){
	"the farthest":            func(m *onnxModel) { nodeOf(m, "nearest/squared").attribute("largest").i = 1 },
	"not sorted":              func(m *onnxModel) { nodeOf(m, "nearest/squared").attribute("sorted").i = 0 },
	"another number":          func(m *onnxModel) { m.initializers["neighbors"].raw[0]++ },
	"mean over too few":       func(m *onnxModel) { m.initializers["count"].setFloat64s(19) },
	"negative distance":       func(m *onnxModel) { setFloat64(m.initializers["k_distance"], 0, -1e-300) },
	"distance not finite":     func(m *onnxModel) { setFloat64(m.initializers["k_distance"], 0, math.NaN()) },
	"density of 0":            func(m *onnxModel) { setFloat64(m.initializers["density"], 99, 0) },
	"negative density":        func(m *onnxModel) { setFloat64(m.initializers["density"], 99, -1) },
	"infinite density":        func(m *onnxModel) { setFloat64(m.initializers["density"], 99, math.Inf(1)) },
	"distances as densities":  func(m *onnxModel) { nodeOf(m, "nearest/density").inputs[0] = "k_distance" },
	"reach without neighbour": func(m *onnxModel) { nodeOf(m, "reach").inputs[0] = "nearest/distance" },
	"another floor":           func(m *onnxModel) { m.initializers["reach_floor"].setFloat64s(0) },
	"expected in other units": func(m *onnxModel) { nodeOf(m, "nearest/rows").inputs[0] = "rows/scaled" },
}

var svmMutations = map[string]func(m *onnxModel){
	"alpha of 0":          func(m *onnxModel) { setFloat64(m.initializers["alpha"], 1, 0) },
	"negative alpha":      func(m *onnxModel) { setFloat64(m.initializers["alpha"], 1, -1) },
	"alpha not finite":    func(m *onnxModel) { setFloat64(m.initializers["alpha"], 1, math.NaN()) },
	"alpha too large":     func(m *onnxModel) { setFloat64(m.initializers["alpha"], 1, 1e6) },
	"gamma one bit off":   func(m *onnxModel) { m.initializers["gamma"].raw[0] ^= 1 },
	"median moved":        func(m *onnxModel) { m.initializers["reference_values"].raw[0] ^= 1 },
	"scaled median moved": func(m *onnxModel) { m.initializers["reference_scaled"].raw[0] ^= 1 },
	"cancellation": func(m *onnxModel) {
		n := nodeOf(m, "complement")
		n.opType, n.inputs = "Sub", []string{"one", "kernel"}
	},
	"half a half":       func(m *onnxModel) { m.initializers["half"].setFloat64s(.25) },
	"no floor":          func(m *onnxModel) { m.initializers["inside_floor"].setFloat64s(0) },
	"inside is outside": func(m *onnxModel) { nodeOf(m, "inside").inputs[0] = "complement" },
}

var denseMutations = map[string]func(m *onnxModel){
	"weight not finite": func(m *onnxModel) { setFloat64(m.initializers["layer_1.kernel"], 0, math.NaN()) },
	"weight too large":  func(m *onnxModel) { setFloat64(m.initializers["layer_2.kernel"], 0, 1e140) },
	"bias too large":    func(m *onnxModel) { setFloat64(m.initializers["layer_4.bias"], 0, -1e151) },
	"shape transposed":  func(m *onnxModel) { slices.Reverse(m.initializers["layer_1.kernel"].dims) },
	"threshold moved":   func(m *onnxModel) { m.initializers["threshold"].raw[0] ^= 1 },
	"another activation": func(m *onnxModel) {
		n := nodeOf(m, "layer_1")
		n.opType = map[string]string{"Relu": "Tanh", "Tanh": "Relu"}[n.opType]
	},
	"activation left out":  func(m *onnxModel) { nodeOf(m, "layer_2").opType = "Identity" },
	"activated output":     func(m *onnxModel) { nodeOf(m, "difference").inputs[1] = "layer_3" },
	"layers out of order":  func(m *onnxModel) { nodeOf(m, "layer_3/product").inputs[1] = "layer_1.kernel" },
	"mean over too few":    func(m *onnxModel) { m.initializers["count"].setFloat64s(6) },
	"scores without bound": func(m *onnxModel) { m.initializers["largest"].setFloat64s(1e300) },
}

// largerFactor is the factor of windows where there is one, else that of samples.
func largerFactor(m *onnxModel) *onnxTensor {
	if w := m.initializers["window_factor"]; w != nil {
		return w
	}
	return m.initializers["row_factor"]
}

var mahalanobisMutations = map[string]func(m *onnxModel){
	"factor not finite": func(m *onnxModel) { setFloat64(largerFactor(m), 0, math.NaN()) },
	"factor infinite":   func(m *onnxModel) { setFloat64(m.initializers["row_factor"], 8, math.Inf(-1)) },
	"factor too large":  func(m *onnxModel) { setFloat64(largerFactor(m), 0, -1.1e6) },
	"factor not triangular": func(m *onnxModel) {
		setFloat64(largerFactor(m), 1, 1)
		setFloat64(largerFactor(m), 7*int(largerFactor(m).dims[0]/7), 1)
	},
	"row not triangular": func(m *onnxModel) {
		setFloat64(m.initializers["row_factor"], 6, 1)
		setFloat64(m.initializers["row_factor"], 42, 1)
	},
	"regression too large":     func(m *onnxModel) { setFloat64(m.initializers["regression"], 1, 1e7) },
	"regression not finite":    func(m *onnxModel) { setFloat64(m.initializers["regression"], 1, math.Inf(1)) },
	"expected from itself":     func(m *onnxModel) { r := m.initializers["regression"]; setFloat64(r, int(r.dims[0]*7)-1, .5) },
	"regression of one row":    func(m *onnxModel) { r := m.initializers["regression"]; r.dims[0]--; r.raw = r.raw[56:] },
	"precision of 0":           func(m *onnxModel) { setFloat64(m.initializers["precision"], 3, 0) },
	"negative precision":       func(m *onnxModel) { setFloat64(m.initializers["precision"], 3, -1) },
	"precision too large":      func(m *onnxModel) { setFloat64(m.initializers["precision"], 6, 2e6) },
	"precision not finite":     func(m *onnxModel) { setFloat64(m.initializers["precision"], 6, math.NaN()) },
	"limit one bit off":        func(m *onnxModel) { m.initializers["limit_start"].raw[0] ^= 1 },
	"slope one bit off":        func(m *onnxModel) { m.initializers["limit_slope"].raw[0] ^= 1 },
	"slope not finite":         func(m *onnxModel) { setFloat64(m.initializers["limit_slope"], 1, math.NaN()) },
	"threshold moved":          func(m *onnxModel) { m.initializers["threshold"].raw[0] ^= 1 },
	"mean over too few":        func(m *onnxModel) { m.initializers["row_count"].setFloat64s(6) },
	"scores without bound":     func(m *onnxModel) { m.initializers["largest"].setFloat64s(1e300) },
	"squared distance":         func(m *onnxModel) { nodeOf(m, "distance").opType = "Identity" },
	"smallest limit":           func(m *onnxModel) { nodeOf(m, "limit").opType = "ReduceMin" },
	"limits of one side":       func(m *onnxModel) { nodeOf(m, "limit/any").opType = "Less" },
	"limit or distance":        func(m *onnxModel) { nodeOf(m, "score/unbounded").opType = "Min" },
	"limits explain the other": func(m *onnxModel) { slices.Reverse(nodeOf(m, "limit/decides").inputs) },
	"factor on its other side": func(m *onnxModel) { slices.Reverse(nodeOf(m, "row/product").inputs) },
	"explained by the error":   func(m *onnxModel) { nodeOf(m, "gains").inputs[0] = "expected/missed" },
	"another last sample": func(m *onnxModel) {
		if step := m.initializers["last_step"]; step != nil {
			step.raw[0] = 0
			return
		}
		nodeOf(m, "expected/scaled").inputs[0] = "samples"
	},
}

// nodeOf gives the node that computes a value.
func nodeOf(m *onnxModel, output string) *onnxNode {
	for i := range m.nodes {
		if slices.Contains(m.nodes[i].outputs, output) {
			return &m.nodes[i]
		}
	}
	panic("no node computes " + output)
}

func swapOutputs(m *onnxModel, op string, outputs int) {
	for i := range m.nodes {
		if n := &m.nodes[i]; n.opType == op && len(n.outputs) == outputs {
			n.outputs[0], n.outputs[1] = n.outputs[1], n.outputs[0]
			return
		}
	}
	panic("no such node")
}

// auditedModels are the models whose graphs are damaged: those of the frozen sets, and those made here that have as many features.
func auditedModels(t *testing.T) []madeModel {
	t.Helper()
	var models []madeModel
	for _, c := range referenceModels(t) {
		if c.detector == Ensemble {
			continue
		}
		meta := c.set.Metadata(c.detector)
		data, err := os.ReadFile(filepath.Join(c.set.Dir(), meta.GetGraph().GetFile()))
		require.NoError(t, err)
		models = append(models, madeModel{c.detector, meta, data})
	}
	for _, m := range madeModels(t) {
		if m.meta.GetNFeatures() == 7 {
			models = append(models, m)
		}
	}
	return models
}

func TestAuditRefusesMutatedGraphs(t *testing.T) {
	own := map[Detector][]map[string]func(*onnxModel){
		IsolationForest: {forestMutations}, LSTMAutoencoder: {lstmMutations}, DenseAutoencoder: {denseMutations},
		LocalOutlierFactor: {distanceMutations, neighborMutations}, OneClassSVM: {distanceMutations, svmMutations},
		LSTMClassifier: {classifierMutations}, Mahalanobis: {mahalanobisMutations},
	}
	seen := map[Detector]bool{}
	for _, model := range auditedModels(t) {
		d, data := model.detector, model.graph
		seen[d] = true
		require.NotEmpty(t, own[d])
		for _, mutations := range append(own[d], graphMutations) {
			for name, mutate := range mutations {
				t.Run(d.String()+"/"+name, func(t *testing.T) {
					m, err := readONNX(slices.Clone(data))
					require.NoError(t, err)
					for i := range m.initializerNames { // mutations must not touch the input
						tensor := m.initializers[m.initializerNames[i]]
						tensor.raw = slices.Clone(tensor.raw)
					}
					mutate(m)
					meta := proto.Clone(model.meta).(*anomalyv1.ModelMetadata)
					meta.Graph.OperatorCounts = map[string]uint32{}
					for i := range m.nodes {
						meta.Graph.OperatorCounts[m.nodes[i].opType]++
					}
					_, err = openGraph(encodeModel(m), meta)
					require.Error(t, err)
				})
			}
		}
		t.Run(d.String()+"/operator counts", func(t *testing.T) {
			meta := proto.Clone(model.meta).(*anomalyv1.ModelMetadata)
			meta.Graph.OperatorCounts["Sub"]++
			_, err := openGraph(data, meta)
			require.Error(t, err)
			delete(meta.Graph.OperatorCounts, "Sub")
			_, err = openGraph(data, meta)
			require.Error(t, err)
		})
		t.Run(d.String()+"/unchanged", func(t *testing.T) {
			m, err := readONNX(data)
			require.NoError(t, err)
			_, err = openGraph(encodeModel(m), model.meta)
			require.NoError(t, err)
		})
	}
	require.Len(t, seen, len(Detectors())-1, "all but the ensemble have a graph")
}
