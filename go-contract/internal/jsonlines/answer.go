package jsonlines

import (
	"encoding/json"
	"math"
	"strconv"

	anomaly "dwcp.internal/anomaly"
)

// AppendVerdict appends the answer line of a scored request (rule E5), with its line feed.
func AppendVerdict(to, id []byte, detector anomaly.Detector, v *anomaly.Verdict) []byte {
	to = append(append(to, `{"id": `...), id...)
	to = appendNumber(append(to, `, "score": `...), float64(v.Score))
	to = strconv.AppendUint(append(to, `, "score_bits": `...), uint64(math.Float32bits(v.Score)), 10)
	to = strconv.AppendBool(append(to, `, "is_anomaly": `...), v.IsAnomaly)
	to = appendList(append(to, `, "contributions": `...), v.Contributions)
	to = appendList(append(to, `, "expected": `...), v.Expected)
	if detector == anomaly.IsolationForest {
		to = appendNumber(append(to, `, "depth_sum": `...), v.DepthSum)
	}
	return append(to, "}\n"...)
}

// AppendError appends the answer line of a refused request, with its line feed.
func AppendError(to, id []byte, e *anomaly.Error) []byte {
	to = append(append(to, `{"id": `...), id...)
	to = append(append(to, `, "error": {"code": "`...), e.Code.String()...)
	to = appendString(append(to, `", "field": `...), e.Field)
	to = appendString(append(to, `, "message": `...), e.Message)
	return append(to, "}}\n"...)
}

func appendList(to []byte, values []float32) []byte {
	to = append(to, '[')
	for i, v := range values {
		if i > 0 {
			to = append(to, ", "...)
		}
		to = appendNumber(to, float64(v))
	}
	return append(to, ']')
}

// appendNumber writes the shortest decimal that is the same float64. What JSON has no number for is a string, as in requests.
func appendNumber(to []byte, x float64) []byte {
	switch {
	case math.IsNaN(x):
		return append(to, `"NaN"`...)
	case math.IsInf(x, 1):
		return append(to, `"Infinity"`...)
	case math.IsInf(x, -1):
		return append(to, `"-Infinity"`...)
	}
	return strconv.AppendFloat(to, x, 'g', -1, 64)
}

func appendString(to []byte, s string) []byte {
	quoted, err := json.Marshal(s)
	if err != nil { // a string always marshals
		return append(to, `""`...)
	}
	return append(to, quoted...)
}
