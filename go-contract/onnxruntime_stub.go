//go:build !onnxruntime || !cgo

package anomaly

import (
	"errors"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// newONNXRuntimeEngine says how to get what this build lacks.
func newONNXRuntimeEngine([]byte, *anomalyv1.ModelMetadata, options) (engine, error) {
	return nil, errors.New("this program was built without ONNX Runtime; build it with cgo and `-tags onnxruntime`, or use the native backend")
}
