//go:build onnxruntime && cgo

package anomaly

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestONNXRuntimeReferenceSet(t *testing.T) {
	set, err := OpenModelSet("../models/reference/v1", WithBackend(ONNXRuntime))
	require.NoError(t, err)
	require.Equal(t, Detectors(), set.Detectors())
	require.NoError(t, set.Close())
}
