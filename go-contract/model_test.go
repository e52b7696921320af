package anomaly

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOpenReferenceSet(t *testing.T) {
	set, err := OpenModelSet("../models/reference/v1")
	require.NoError(t, err)
	require.Equal(t, Detectors(), set.Detectors())
	for _, d := range set.Detectors() {
		r := set.Golden(t.Context(), d, set)
		require.NoError(t, r.Err())
		require.NotZero(t, r.Cases)
		t.Log(r.Summary())
	}
}
