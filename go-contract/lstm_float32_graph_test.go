package anomaly

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// parseNodes makes nodes of the lines of a wiring, the inverse of onnxNode.text for attributes that are integers or lists of them.
func parseNodes(lines ...string) []onnxNode {
	var nodes []onnxNode
	for _, line := range lines {
		op, rest, _ := strings.Cut(line, "(")
		in, rest, _ := strings.Cut(rest, ")->(")
		out, rest, _ := strings.Cut(rest, ")")
		n := onnxNode{opType: op, inputs: strings.Split(in, ","), outputs: strings.Split(out, ",")}
		for _, attribute := range strings.FieldsFunc(strings.Trim(rest, "{}"), func(r rune) bool { return r == ',' }) {
			name, text, _ := strings.Cut(attribute, "=")
			a := onnxAttribute{name: name, kind: attrInt}
			if strings.HasPrefix(text, "[") {
				a.kind = attrInts
			}
			for _, word := range strings.Fields(strings.Trim(text, "[]")) {
				value, err := strconv.ParseInt(word, 10, 64)
				if err != nil {
					panic(err)
				}
				a.i = value
				a.ints = append(a.ints, value)
			}
			n.attributes = append(n.attributes, a)
		}
		nodes = append(nodes, n)
	}
	return nodes
}

func (m *onnxModel) addTensor(name string, elemType int64, values []float64, dims ...int64) {
	t := &onnxTensor{name: name, elemType: elemType, dims: dims, hasRaw: true}
	for _, v := range values {
		switch elemType {
		case typeFloat32:
			t.raw = binary.LittleEndian.AppendUint32(t.raw, math.Float32bits(float32(v)))
		case typeInt64:
			t.raw = binary.LittleEndian.AppendUint64(t.raw, uint64(int64(v)))
		default:
			t.raw = binary.LittleEndian.AppendUint64(t.raw, math.Float64bits(v))
		}
	}
	m.initializers[name] = t
	m.initializerNames = append(m.initializerNames, name)
}

// toONNXGates is the inverse of fromONNXGates.
func toONNXGates(w []float64, in, units int) []float64 {
	out := make([]float64, len(w))
	for gate, to := range [4]int{0, 2, 1, 3} {
		for u := range units {
			for k := range in {
				out[(to*units+u)*in+k] = w[k*4*units+gate*units+u]
			}
		}
	}
	return out
}

// float32Graph is a graph as tf2onnx and our exporter write it, with a made-up threshold of 1.00000006.
func float32Graph(s scaler, w networkWeights, timesteps int) (*onnxModel, *anomalyv1.ModelMetadata) {
	features := len(s.mean)
	steps, threshold := uint32(timesteps), nearestMidpoint(1)
	meta := &anomalyv1.ModelMetadata{
		ModelType: "lstm_autoencoder", NFeatures: uint32(features), Timesteps: &steps, Threshold: threshold,
		Scaler: &anomalyv1.Scaler{Mean: s.mean, Scale: s.scale}, Lstm: &anomalyv1.LstmParameters{},
		Graph: &anomalyv1.Graph{Layout: "lstm.float32.v1", OperatorCounts: map[string]uint32{}},
	}
	m := &onnxModel{opsets: map[string]int64{"": 17}, props: map[string]string{
		"dwcp.layout": "lstm.float32.v1", "dwcp.threshold": strconv.FormatFloat(threshold, 'g', -1, 64), "dwcp.features": "",
	}, initializers: map[string]*onnxTensor{}}
	m.inputs = []onnxValue{{"samples", typeFloat64, []int64{-1, int64(timesteps), int64(features)}}}
	for i, name := range []string{"score", "is_anomaly", "contributions", "expected"} {
		dims := []int64{-1, int64(features)}
		elemType := []int64{typeFloat32, typeBool, typeFloat32, typeFloat32}[i]
		if i < 2 {
			dims = dims[:1]
		}
		m.outputs = append(m.outputs, onnxValue{name, elemType, dims})
	}
	f := int64(features)
	m.addTensor("scaler_mean", typeFloat64, s.mean, f)
	m.addTensor("scaler_scale", typeFloat64, s.scale, f)
	m.addTensor("clamp_low", typeFloat64, []float64{-1e15})
	m.addTensor("clamp_high", typeFloat64, []float64{1e15})
	m.addTensor("threshold", typeFloat64, []float64{threshold})
	m.addTensor("zero", typeFloat64, []float64{0})
	m.addTensor("count", typeFloat64, []float64{float64(timesteps * features)})
	m.addTensor("over_time", typeInt64, []float64{1}, 1)
	m.addTensor("last_step", typeInt64, []float64{float64(timesteps - 1)})
	m.nodes = parseNodes(append(scaleNodes("samples", "scaled/float64"), "Cast(scaled/float64)->(scaled){to=1}")...)
	for i, l := range w.layers {
		name, u := lstmLayerNames[i], int64(l.units)
		meta.Lstm.Units = append(meta.Lstm.Units, uint32(l.units))
		m.addTensor(name+".W", typeFloat32, toONNXGates(l.kernel, l.in, l.units), 1, 4*u, int64(l.in))
		m.addTensor(name+".R", typeFloat32, toONNXGates(l.recurrent, l.units, l.units), 1, 4*u, u)
		m.addTensor(name+".B", typeFloat32, append(toONNXGates(l.bias, 1, l.units), make([]float64, 4*u)...), 1, 8*u)
		n := parseNodes("LSTM(x," + name + ".W," + name + ".R," + name + ".B)->(y)")[0]
		n.attributes = []onnxAttribute{
			{name: "hidden_size", kind: attrInt, i: u}, {name: "direction", kind: attrString, s: []byte("forward")},
		}
		m.nodes = append(m.nodes, n)
	}
	m.addTensor("dense.kernel", typeFloat32, w.denseKernel, int64(w.layers[3].units), f)
	m.addTensor("dense.bias", typeFloat32, w.denseBias, f)
	m.nodes = append(m.nodes, parseNodes("MatMul(y,dense.kernel)->(p)", "Add(p,dense.bias)->(d)", "Cast(d)->(reconstructed){to=11}")...)
	m.nodes = append(m.nodes, parseNodes(scoreNodes("scaled/float64")...)...)
	for i := range m.nodes {
		meta.Graph.OperatorCounts[m.nodes[i].opType]++
	}
	return m, meta
}

func TestFloat32LayoutEqualsThePlainFormula(t *testing.T) {
	random := rand.New(rand.NewPCG(13, 14))
	const timesteps = 4
	s, w := randomNetwork(random, 3, [4]int{6, 4, 5, 2})
	m, meta := float32Graph(s, w, timesteps)
	e, err := openGraph(encodeModel(m), meta)
	require.NoError(t, err)
	window := make([]float64, 3*timesteps)
	for range 20 {
		for k := range window {
			window[k] = 2 * random.NormFloat64()
		}
		score, _, _ := plainAutoencoder(s, w, window, timesteps)
		var v Verdict
		require.NoError(t, e.score(window, ExplainAlways, &v))
		require.Equal(t, float32(score), v.Score)
	}
}

func TestFloat32LayoutRefusesMutations(t *testing.T) {
	lstm := func(m *onnxModel, i int) *onnxNode { return &m.nodes[4+i] }
	for name, mutate := range map[string]func(m *onnxModel){
		"layers swapped":       func(m *onnxModel) { m.nodes[4], m.nodes[5] = m.nodes[5], m.nodes[4] },
		"other activations":    func(m *onnxModel) { lstm(m, 0).attributes[1] = onnxAttribute{name: "clip", kind: attrFloat, f: 1} },
		"backwards":            func(m *onnxModel) { lstm(m, 0).attributes[1].s = []byte("reverse") },
		"other size":           func(m *onnxModel) { lstm(m, 1).attributes[0].i = 9 },
		"operator that bends":  func(m *onnxModel) { m.nodes[8].opType = "Relu" },
		"no cast":              func(m *onnxModel) { m.nodes[3].opType = "Identity" },
		"a layer too few":      func(m *onnxModel) { m.nodes = slices.Delete(m.nodes, 4, 5) },
		"score of other nodes": func(m *onnxModel) { m.nodes[len(m.nodes)-1].opType = "Identity" },
		"operands swapped":     func(m *onnxModel) { slices.Reverse(m.nodes[0].inputs) },
		"weight not finite":    func(m *onnxModel) { m.addTensorBits("dense.bias", math.Float32bits(float32(math.NaN()))) },
		"shape":                func(m *onnxModel) { m.initializers["encoder_1.B"].dims = []int64{48} },
		"count":                func(m *onnxModel) { m.initializers["count"].setFloat64s(11) },
	} {
		t.Run(name, func(t *testing.T) {
			s, w := randomNetwork(rand.New(rand.NewPCG(15, 16)), 3, [4]int{6, 4, 5, 2})
			m, meta := float32Graph(s, w, 4)
			mutate(m)
			clear(meta.Graph.OperatorCounts)
			for i := range m.nodes {
				meta.Graph.OperatorCounts[m.nodes[i].opType]++
			}
			_, err := openGraph(encodeModel(m), meta)
			require.Error(t, err)
		})
	}
}

// addTensorBits overwrites the first value of a float32 tensor.
func (m *onnxModel) addTensorBits(name string, bits uint32) {
	binary.LittleEndian.PutUint32(m.initializers[name].raw, bits)
}
