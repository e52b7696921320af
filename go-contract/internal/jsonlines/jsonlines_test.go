package jsonlines

import (
	"bytes"
	"encoding/json"
	"math"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	anomaly "dwcp.internal/anomaly"
)

func TestParse(t *testing.T) {
	var r Request
	err := r.Parse([]byte(` { "x": {"id": [1, {}]}, "id" : "a\"b" , "detector":"isolation_\u0066orest","samples":[[1, -2.5e-3,"NaN"],[],["Infinity","-Infinity",1e400,-1e400,1e-400]] }` + "\r"))
	require.Nil(t, err)
	assert.Equal(t, `"a\"b"`, string(r.ID))
	assert.Equal(t, "isolation_forest", r.Detector)
	require.Len(t, r.Samples, 3)
	assert.Equal(t, []float64{1, -2.5e-3}, r.Samples[0][:2])
	assert.True(t, math.IsNaN(r.Samples[0][2]))
	assert.Empty(t, r.Samples[1])
	assert.Equal(t, []float64{math.Inf(1), math.Inf(-1), math.Inf(1), math.Inf(-1), 0}, r.Samples[2])
}

// TestParseRefuses is E5, one line for each way to be wrong.
func TestParseRefuses(t *testing.T) {
	const ok = `"detector":"isolation_forest"`
	for line, want := range map[string][2]string{
		// Not a JSON object: no field, no id.
		``:                                      {"", "null"},
		`null`:                                  {"", "null"},
		`[{"id":1}]`:                            {"", "null"},
		`{"id":1`:                               {"", "null"},
		`{"id":1,}`:                             {"", "null"},
		`{"id":1} x`:                            {"", "null"},
		"{\"id\":1}\x00":                        {"", "null"},
		`{"id":01}`:                             {"", "null"},
		`{"id":.5}`:                             {"", "null"},
		`{"id":+1}`:                             {"", "null"},
		`{"id":1.}`:                             {"", "null"},
		`{"id":1e}`:                             {"", "null"},
		`{"id":"\x"}`:                           {"", "null"},
		`{"id":"` + "\t" + `"}`:                 {"", "null"},
		`{id:1}`:                                {"", "null"},
		`{"id":1,` + ok + `,"samples":[[NaN]]}`: {"", "null"},
		"{\"id\":\"\xff\"," + ok + `,"samples":[[1]]}`: {"", "null"},
		// The detector.
		`{"id":1}`:                             {"detector", "1"},
		`{"id":[1, 2],"detector":null}`:        {"detector", "[1, 2]"},
		`{"id":1,"detector":7,"samples":3}`:    {"detector", "1"},
		`{"detector":"x","samples":3}`:         {"samples", "null"}, // before the detector's name is looked at
		`{"id":1,"detector":"x","detector":2}`: {"detector", "1"},
		// The samples.
		`{"id":1,` + ok + `}`:                           {"samples", "1"},
		`{"id":1,` + ok + `,"samples":null}`:            {"samples", "1"},
		`{"id":1,` + ok + `,"samples":{}}`:              {"samples", "1"},
		`{"id":1,` + ok + `,"samples":[1]}`:             {"samples", "1"},
		`{"id":1,` + ok + `,"samples":[[1],2]}`:         {"samples", "1"},
		`{"id":1,` + ok + `,"samples":[[true]]}`:        {"samples", "1"},
		`{"id":1,` + ok + `,"samples":[[null]]}`:        {"samples", "1"},
		`{"id":1,` + ok + `,"samples":[["1"]]}`:         {"samples", "1"},
		`{"id":1,` + ok + `,"samples":[["inf"]]}`:       {"samples", "1"},
		`{"id":1,` + ok + `,"samples":[["nan"]]}`:       {"samples", "1"},
		`{"id":1,` + ok + `,"samples":[["+Infinity"]]}`: {"samples", "1"},
		`{"id":1,` + ok + `,"samples":[[[1]]]}`:         {"samples", "1"},
		`{"id":1,` + ok + `,"samples":[[{}]]}`:          {"samples", "1"},
	} {
		var r Request
		err := r.Parse([]byte(line))
		require.NotNil(t, err, line)
		assert.Equal(t, anomaly.CodeInvalidRequest, err.Code, line)
		assert.Equal(t, want[0], err.Field, line)
		assert.Equal(t, want[1], string(r.ID), line)
	}
}

func TestParseDeepNesting(t *testing.T) {
	var r Request
	deep := make([]byte, 0, 1<<20)
	deep = append(deep, `{"id":`...)
	for range 1 << 19 {
		deep = append(deep, '[')
	}
	require.NotNil(t, r.Parse(deep))
}

func TestAnswersAreJSON(t *testing.T) {
	v := anomaly.Verdict{Score: .1, IsAnomaly: true, Contributions: []float32{1, 0}, Expected: []float32{1e-30, -2e30}, DepthSum: 1234.5}
	var got map[string]any
	require.NoError(t, json.Unmarshal(AppendVerdict(nil, []byte(`"x"`), anomaly.IsolationForest, &v), &got))
	assert.Equal(t, map[string]any{
		"id": "x", "score": float64(float32(.1)), "score_bits": float64(math.Float32bits(.1)), "is_anomaly": true,
		"contributions": []any{1.0, 0.0}, "expected": []any{float64(float32(1e-30)), float64(float32(-2e30))}, "depth_sum": 1234.5,
	}, got)
	got = nil
	require.NoError(t, json.Unmarshal(AppendVerdict(nil, []byte("1"), anomaly.LSTMAutoencoder, &v), &got))
	assert.NotContains(t, got, "depth_sum")

	got = nil
	refusal := &anomaly.Error{Code: anomaly.CodeNotFinite, Field: `samples[0]."x"`, Message: "line\nfeed"}
	require.NoError(t, json.Unmarshal(AppendError(nil, []byte("null"), refusal), &got))
	assert.Equal(t, map[string]any{
		"id": nil, "error": map[string]any{"code": "NOT_FINITE", "field": `samples[0]."x"`, "message": "line\nfeed"},
	}, got)
}

// FuzzRequestLine: no line makes the parser panic; it agrees with encoding/json on what JSON is, and on the numbers.
func FuzzRequestLine(f *testing.F) {
	for _, line := range []string{
		`{"id":1,"detector":"isolation_forest","samples":[[1,2,3.5e-7,"NaN",-0.0,1e400]]}`, `{"id":null,"samples":[[],[]]}`, `[]`, ``,
		`{"id":"\u00e9\ud800","detector":"\"","samples":[["Infinity"]]}`, `{"a":{"b":[true,false,null,{}]},"detector":"x"}`, "{\"id\":\"\xff\"}",
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		var r Request
		err := r.Parse(line)
		var fields map[string]json.RawMessage
		object := json.Unmarshal(line, &fields) == nil && fields != nil
		if err == nil || err.Field != "" {
			require.True(t, json.Valid(line))
			require.True(t, object)
			require.True(t, json.Valid(r.ID))
		}
		nested := bytes.Count(line, []byte("[")) + bytes.Count(line, []byte("{"))
		if err != nil && err.Field == "" && utf8.Valid(line) && nested <= maxNesting {
			require.False(t, object)
		}
		var plain struct {
			Samples [][]float64 `json:"samples"`
		}
		if err == nil && json.Unmarshal(line, &plain) == nil && len(plain.Samples) == len(r.Samples) {
			for i := range plain.Samples {
				require.Equal(t, len(plain.Samples[i]), len(r.Samples[i]))
			}
		}
	})
}

func BenchmarkParseWindow(b *testing.B) {
	line := []byte(`{"id": 1, "detector": "lstm_autoencoder", "samples": [`)
	for i := range 10 {
		if i > 0 {
			line = append(line, ", "...)
		}
		line = append(line, `[101.38294857283, 9.8273645172635, 0.0081726354, 1.0293847561, 27.182818284, 41.4142135623, 0.00083920475]`...)
	}
	line = append(line, "]}"...)
	var r Request
	b.ReportAllocs()
	b.SetBytes(int64(len(line)))
	for range b.N {
		if err := r.Parse(line); err != nil {
			b.Fatal(err)
		}
	}
}
