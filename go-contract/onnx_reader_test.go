package anomaly

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
)

func readReferenceGraph(tb testing.TB, name string) []byte {
	tb.Helper()
	data, err := os.ReadFile(filepath.Join(referenceSet, name))
	require.NoError(tb, err)
	return data
}

func allValues(string) bool { return false }

func TestReadONNXRoundTrip(t *testing.T) {
	for _, name := range []string{"isolation_forest.onnx", "lstm_autoencoder.onnx"} {
		m, err := readONNX(readReferenceGraph(t, name))
		require.NoError(t, err)
		again, err := readONNX(encodeModel(m))
		require.NoError(t, err)
		want, err := m.wiring(allValues)
		require.NoError(t, err)
		got, err := again.wiring(allValues)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
}

func TestTensorsInRawAndTypedForm(t *testing.T) {
	doubles := []float64{1.5, -2, 1e300}
	var raw []byte
	unpacked := appendText(appendInteger(appendInteger(nil, 1, 3), 2, typeFloat64), 8, "x")
	for _, v := range doubles {
		raw = binary.LittleEndian.AppendUint64(raw, math.Float64bits(v))
		unpacked = protowire.AppendFixed64(protowire.AppendTag(unpacked, 10, protowire.Fixed64Type), math.Float64bits(v))
	}
	head := appendText(appendInteger(appendInteger(nil, 1, 3), 2, typeFloat64), 8, "x")
	for name, b := range map[string][]byte{
		"raw": appendMessage(head, 9, raw), "packed": appendMessage(head, 10, raw), "unpacked": unpacked,
	} {
		tensor, err := readTensor(b)
		require.NoError(t, err, name)
		values, err := tensor.float64s()
		require.NoError(t, err, name)
		assert.Equal(t, doubles, values, name)
		_, err = tensor.float32s()
		require.Error(t, err)
		_, err = tensor.int64s()
		require.Error(t, err)
	}

	ints := appendText(appendInteger(appendInteger(nil, 1, 2), 2, typeInt64), 8, "i")
	ints = appendInteger(appendInteger(ints, 7, -1), 7, 5)
	tensor, err := readTensor(ints)
	require.NoError(t, err)
	values, err := tensor.int64s()
	require.NoError(t, err)
	assert.Equal(t, []int64{-1, 5}, values)
}

func TestReadTensorRefuses(t *testing.T) {
	tensor := func(elemType int64, dims ...int64) []byte {
		b := appendInteger(nil, 2, elemType)
		for _, d := range dims {
			b = appendInteger(b, 1, d)
		}
		return b
	}
	for name, b := range map[string][]byte{
		"negative dimension":    tensor(typeFloat64, -1),
		"huge":                  tensor(typeFloat64, math.MaxInt32, math.MaxInt32, math.MaxInt32),
		"many dimensions":       tensor(typeFloat64, 1, 1, 1, 1, 1, 1, 1, 1, 1),
		"unknown type":          tensor(99, 1),
		"too little data":       appendMessage(tensor(typeFloat64, 2), 9, make([]byte, 8)),
		"both forms":            appendMessage(appendMessage(tensor(typeFloat64, 1), 9, make([]byte, 8)), 10, make([]byte, 8)),
		"field of another type": appendMessage(tensor(typeFloat64, 1), 7, []byte{1}),
		"external data":         appendInteger(tensor(typeFloat64, 1), 14, 1),
		"twice":                 appendMessage(appendMessage(tensor(typeUint8, 1), 9, []byte{1}), 9, []byte{1}),
	} {
		_, err := readTensor(b)
		assert.Error(t, err, name)
	}
}

func TestReadONNXRefuses(t *testing.T) {
	graph := func(field protowire.Number, body []byte) []byte {
		return appendMessage(nil, 7, appendMessage(nil, field, body))
	}
	for name, b := range map[string][]byte{
		"nothing":               {},
		"not protobuf":          []byte("<!DOCTYPE html>"),
		"truncated":             {0x3a, 0x7f},
		"group":                 {0x0b},
		"two graphs":            append(appendMessage(nil, 7, nil), appendMessage(nil, 7, nil)...),
		"functions":             append(appendMessage(nil, 7, nil), appendMessage(nil, 25, nil)...),
		"sparse initializers":   graph(15, nil),
		"subgraph":              graph(1, appendMessage(nil, 5, appendMessage(appendText(nil, 1, "body"), 6, nil))),
		"overload":              graph(1, appendText(nil, 8, "x")),
		"attribute twice":       graph(1, append(appendMessage(nil, 5, appendText(nil, 1, "a")), appendMessage(nil, 5, appendText(nil, 1, "a"))...)),
		"graph of another kind": appendInteger(nil, 7, 1),
		"long name":             graph(1, appendMessage(nil, 4, make([]byte, maxNameBytes+1))),
	} {
		_, err := readONNX(b)
		assert.Error(t, err, name)
	}
}

// FuzzONNXReader: no bytes make the reader or the audit panic or run away, and what opens scores: golden
// vectors of the reference set, and values far outside of anything.
func FuzzONNXReader(f *testing.F) {
	set := openReference(f)
	made := madeModels(f)
	graphs := [][]byte{readReferenceGraph(f, "isolation_forest.onnx"), readReferenceGraph(f, "lstm_autoencoder.onnx")}
	for _, m := range made {
		graphs = append(graphs, m.graph)
	}
	for _, data := range graphs {
		f.Add(data)
		f.Add(data[:len(data)/2])
	}
	f.Add([]byte{})
	f.Add(appendMessage(nil, 7, appendMessage(nil, 5, appendInteger(appendInteger(nil, 1, math.MaxInt32), 2, typeFloat64))))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, d := range set.Detectors() {
			m := set.models[d]
			e, err := openGraph(data, m.metadata)
			if err != nil {
				continue
			}
			copied := *m
			copied.engine = e
			var v Verdict
			for _, r := range goldenRequests(t, set, d, ExplainAlways)[:3] {
				require.NoError(t, copied.scoreSamples(r.Samples[len(r.Samples)-m.shape.timesteps:], ExplainAlways, &v))
			}
		}
		for _, m := range made {
			e, err := openGraph(data, m.meta)
			if err != nil {
				continue
			}
			var v Verdict
			for _, sample := range farSamples(int(m.meta.GetNFeatures())) {
				require.NoError(t, e.score(m.window(sample), ExplainAlways, &v))
				require.True(t, finite(float64(v.Score)))
			}
		}
	})
}
