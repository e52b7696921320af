package anomaly

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// Models made up by tests: metadata that pass every check, and a graph that is written from the wiring of its layout.

// madeModel is a model with its graph.
type madeModel struct {
	detector Detector
	meta     *anomalyv1.ModelMetadata
	graph    []byte
}

// open opens the graph.
func (m madeModel) open(tb testing.TB) engine {
	tb.Helper()
	e, err := openGraph(m.graph, m.meta)
	require.NoError(tb, err)
	return e
}

// set is a model set in memory around the opened graph.
func (m madeModel) set(tb testing.TB) *ModelSet {
	tb.Helper()
	return inMemory(m.detector, m.meta, m.open(tb))
}

// scaler is that of the model.
func (m madeModel) scaler() scaler {
	return scaler{mean: m.meta.GetScaler().GetMean(), scale: m.meta.GetScaler().GetScale()}
}

// steps is the number of samples that the model scores at once.
func (m madeModel) steps() int { return windowLength(m.meta) }

// window is a window of one sample again and again.
func (m madeModel) window(sample []float64) []float64 { return slices.Repeat(sample, m.steps()) }

// makeModel adds to metadata what every model has, and writes the graph: lines with the values of the model.
func makeModel(tb testing.TB, d Detector, meta *anomalyv1.ModelMetadata, s scaler, lines []string, values map[string][]float64) madeModel {
	tb.Helper()
	schema := &anomalyv1.FeatureSchema{Name: "made", Version: 1}
	for j := range s.mean {
		schema.Features = append(schema.Features, &anomalyv1.Feature{Name: fmt.Sprintf("f%d", j)})
	}
	references := values["reference_values"]
	if references == nil {
		references = slices.Clone(s.mean)
	}
	layouts := map[Detector]string{
		DenseAutoencoder: "dense.v1", LocalOutlierFactor: "neighbors.v1", OneClassSVM: "svm.v1", LSTMClassifier: "classifier.v1",
		Mahalanobis: "mahalanobis.v1",
	}
	proto.Merge(meta, newMetadata(d, schema, s, references))
	meta.Graph = &anomalyv1.Graph{
		File: d.String() + ".onnx", Available: true, Layout: layouts[d], Precision: "float64", OperatorCounts: map[string]uint32{},
	}
	meta.Threshold = nearestMidpoint(meta.Threshold)
	meta.Calibration = &anomalyv1.Calibration{Scores: []float32{.5, 1}, Source: "made up"}

	values["scaler_mean"], values["scaler_scale"], values["threshold"] = s.mean, s.scale, []float64{meta.Threshold}
	m := graphOf(tb, lines, values)
	m.props = map[string]string{
		"dwcp.layout": meta.Graph.Layout, "dwcp.threshold": strconv.FormatFloat(meta.Threshold, 'g', -1, 64),
		"dwcp.features": strings.Join(meta.FeatureNames, ","),
	}
	for i := range m.nodes {
		meta.Graph.OperatorCounts[m.nodes[i].opType]++
	}
	require.NoError(tb, checkMetadata(meta, d))
	return madeModel{d, meta, encodeModel(m)}
}

// graphOf is the inverse of onnxModel.wiring, with values for the initializers that are not constants.
func graphOf(tb testing.TB, lines []string, values map[string][]float64) *onnxModel {
	tb.Helper()
	m := &onnxModel{opsets: map[string]int64{}, initializers: map[string]*onnxTensor{}}
	for _, line := range lines {
		kind, rest, _ := strings.Cut(line, " ")
		name, typed, _ := strings.Cut(rest, " ")
		switch kind {
		case "opset":
			domain, version, _ := strings.Cut(rest, "=")
			number, err := strconv.ParseInt(version, 10, 64)
			require.NoError(tb, err)
			m.opsets[domain] = number
		case "input":
			elemType, dims := parseType(tb, typed)
			m.inputs = append(m.inputs, onnxValue{name, elemType, dims})
		case "output":
			elemType, dims := parseType(tb, typed)
			m.outputs = append(m.outputs, onnxValue{name, elemType, dims})
		case "initializer":
			require.Contains(tb, values, name)
			elemType, dims := parseType(tb, typed)
			m.addTensor(name, elemType, values[name], dims...)
		case "constant":
			typed, text, _ := strings.Cut(typed, "=")
			elemType, dims := parseType(tb, typed)
			var list []float64
			for _, word := range strings.Fields(strings.Trim(text, "[]")) {
				x, err := strconv.ParseFloat(word, 64)
				require.NoError(tb, err)
				list = append(list, x)
			}
			m.addTensor(name, elemType, list, dims...)
		default:
			m.nodes = append(m.nodes, parseNodes(line)...)
		}
	}
	return m
}

// parseType reads a type with dimensions, for example float64[?,7].
func parseType(tb testing.TB, text string) (elemType int64, dims []int64) {
	tb.Helper()
	name, rest, _ := strings.Cut(text, "[")
	for _, t := range []int64{typeFloat32, typeFloat64, typeInt64, typeBool} {
		if typeName(t) == name {
			elemType = t
		}
	}
	require.NotZero(tb, elemType, text)
	for _, word := range strings.FieldsFunc(strings.TrimSuffix(rest, "]"), func(r rune) bool { return r == ',' }) {
		d := int64(-1)
		if word != "?" {
			var err error
			d, err = strconv.ParseInt(word, 10, 64)
			require.NoError(tb, err)
		}
		dims = append(dims, d)
	}
	return elemType, dims
}

// randomScaler draws a scaler.
func randomScaler(random *rand.Rand, features int) scaler {
	s := scaler{mean: make([]float64, features), scale: make([]float64, features)}
	for j := range features {
		s.mean[j], s.scale[j] = 10*random.NormFloat64(), .5+3*random.Float64()
	}
	return s
}

// randomRows draws rows around the mean of a scaler.
func randomRows(random *rand.Rand, s scaler, count int) []float64 {
	rows := make([]float64, 0, count*len(s.mean))
	for range count {
		for j := range s.mean {
			rows = append(rows, s.mean[j]+s.scale[j]*random.NormFloat64())
		}
	}
	return rows
}

func scaleRow(s scaler, row []float64) []float64 {
	z := make([]float64, len(row))
	for j, x := range row {
		z[j] = s.scale1(x, j)
	}
	return z
}

// requireScore demands the published score of an unrounded one, up to the gap of P2: one part in 10^12.
func requireScore(t *testing.T, want float64, got float32) {
	t.Helper()
	require.True(t, float32(want*(1-1e-12)) <= got && got <= float32(want*(1+1e-12)), "want %v, got %v", want, got)
}

// requireShares demands contributions: the parts divided by their sum, or zeros.
func requireShares(t *testing.T, parts []float64, got []float32) {
	t.Helper()
	total := 0.0
	for _, p := range parts {
		total += p
	}
	require.Len(t, got, len(parts))
	for j, p := range parts {
		share := 0.0
		if total > 0 {
			share = p / total
		}
		require.InDelta(t, share, float64(got[j]), 1e-7)
	}
}

// farSamples are finite samples far outside anything a model knows (rules F4, S1).
func farSamples(features int) [][]float64 {
	var samples [][]float64
	for _, x := range []float64{math.MaxFloat64, -math.MaxFloat64, 1e300, 1e15, 5e-324, math.Copysign(0, -1)} {
		sample := make([]float64, features)
		for j := range sample {
			sample[j] = x
		}
		samples = append(samples, sample)
	}
	return samples
}

// madeModels has a model of each detector made here.
func madeModels(tb testing.TB) []madeModel {
	tb.Helper()
	random := rand.New(rand.NewPCG(21, 22))
	return []madeModel{
		makeDense(tb, random, 7, activationReLU, 8, 3, 8), makeDense(tb, random, 1, activationTanh, 2),
		makeNeighbors(tb, random, 7, 100, 20), makeNeighbors(tb, random, 1, 1, 1),
		makeSVM(tb, random, 7, 50), makeSVM(tb, random, 1, 1),
		makeClassifier(tb, random, 5, 7, 8, 5, 3), makeClassifier(tb, random, 1, 1, 1, 1, 1),
		makeMahalanobis(tb, random, 5, 7), makeMahalanobis(tb, random, 0, 7), makeMahalanobis(tb, random, 0, 1),
	}
}

func TestMadeModelsScoreItems(t *testing.T) {
	for _, m := range madeModels(t) {
		set, features, steps := m.set(t), int(m.meta.NFeatures), m.steps()
		random := rand.New(rand.NewPCG(23, 24))
		s := m.scaler()
		rows := randomRows(random, s, 200)
		for i := range 20 { // some far away, so that there are alarms
			rows[i*features] += 30 * s.scale[0]
		}
		alarms := 0
		for _, explain := range []Explain{ExplainAlways, ExplainAlarms, ExplainNever} {
			var batch BatchVerdict
			require.NoError(t, set.ScoreBatch(t.Context(), BatchRequest{Detector: m.detector, Rows: rows, Explain: explain}, &batch))
			require.Len(t, batch.Scores, 200/steps)
			require.Empty(t, batch.DepthSums)
			for i := range batch.Scores {
				var v, item Verdict
				samples := [][]float64{make([]float64, features)} // only the last ones count (W1, W2)
				for row := range slices.Chunk(rows[i*steps*features:][:steps*features], features) {
					samples = append(samples, row)
				}
				require.NoError(t, set.Score(t.Context(), Request{Detector: m.detector, Samples: samples, Explain: explain}, &v))
				require.Equal(t, float64(v.Score) > m.meta.Threshold, v.IsAnomaly) // D1
				require.Zero(t, v.DepthSum)
				require.Empty(t, v.Members)
				if v.IsAnomaly {
					alarms++
				}
				if explain.wanted(v.IsAnomaly) {
					require.Len(t, v.Contributions, features)
					require.Len(t, v.Expected, features)
				} else {
					require.Empty(t, v.Contributions)
					require.Empty(t, v.Expected)
				}
				batch.Item(i, features, &item)
				require.Equal(t, v.Score, item.Score)
				require.Equal(t, v.IsAnomaly, item.IsAnomaly)
				if len(v.Contributions) > 0 {
					require.Equal(t, v.Contributions, item.Contributions)
					require.Equal(t, v.Expected, item.Expected)
				}
			}
		}
		if features == 7 { // the others are the smallest models that there are: a row, a unit
			require.Greater(t, alarms, 0, m.detector)
			require.Less(t, alarms, 3*200/steps, m.detector)
		}
	}
}

func TestMadeModelsAreFiniteAtTheEnds(t *testing.T) {
	for _, m := range madeModels(t) {
		e := m.open(t)
		for _, sample := range farSamples(int(m.meta.NFeatures)) {
			var v Verdict
			require.NoError(t, e.score(m.window(sample), ExplainAlways, &v))
			require.True(t, finite(float64(v.Score)) && v.Score >= 0, "%s of %v is %v", m.detector, sample, v.Score)
			sum := 0.0
			for _, c := range v.Contributions {
				require.True(t, c >= 0)
				sum += float64(c)
			}
			require.InDelta(t, 1, sum, 1e-6)
		}
	}
}

func TestMadeModelsScoreWithoutAllocating(t *testing.T) {
	for _, m := range madeModels(t) {
		set := m.set(t)
		sample := randomRows(rand.New(rand.NewPCG(25, 26)), m.scaler(), 1)
		requireNoAllocations(t, set, Request{Detector: m.detector, Samples: repeat(sample, m.steps()), Explain: ExplainAlways})
	}
}
