package server

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// TestTrainedShare runs the cases that Python runs, too (rule M4).
func TestTrainedShare(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "..", "..", "tests", "vectors", "alarm_budget", "v1.json"))
	require.NoError(t, err)
	var file struct {
		Cases []struct {
			ID       string          `json:"id"`
			Metadata json.RawMessage `json:"metadata"`
			Share    *float64        `json:"share"`
		} `json:"cases"`
	}
	require.NoError(t, json.Unmarshal(data, &file))
	require.Greater(t, len(file.Cases), 20)
	for _, c := range file.Cases {
		t.Run(c.ID, func(t *testing.T) {
			var metadata anomalyv1.ModelMetadata
			require.NoError(t, protojson.Unmarshal(c.Metadata, &metadata))
			want := 0.0
			if c.Share != nil {
				want = *c.Share
			}
			require.Equal(t, want, trainedShare(&metadata))
		})
	}
}
