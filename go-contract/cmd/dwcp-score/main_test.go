package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const models = "../../../models/reference/v1"

const table1 = `memory_usage,timestamp,packet_loss,latency,bandwidth,jitter,cpu_usage,error_rate,room
40,2026-01-01T00:00:00Z,0.01,10,100,1,30,0.001,a
40,2026-01-01T00:00:10Z,4.9,48,5,9.5,99,0.9,b
`

func run(args []string, in string) (status int, out, messages string) {
	var o, m bytes.Buffer
	status = command(context.Background(), args, strings.NewReader(in), &o, &m)
	return status, o.String(), m.String()
}

func TestPrintsAlarms(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.csv")
	require.NoError(t, os.WriteFile(path, []byte(table1), 0o600))
	status, out, messages := run([]string{"--models", models, path}, "")
	require.Zero(t, status, messages)
	assert.Contains(t, out, "1 alarms in 2 scored rows")
	assert.Contains(t, out, "2026-01-01T00:00:10Z  CRITICAL")
	assert.NotContains(t, out, "2026-01-01T00:00:00Z")
	assert.Contains(t, out, "2 rows are fewer than the window of 10")

	status, out, _ = run([]string{"--models", models, "--detector", "isolation_forest", "--all", "-"}, table1)
	require.Zero(t, status)
	assert.Contains(t, out, "2026-01-01T00:00:00Z")
	assert.NotContains(t, out, "lstm_autoencoder")
}

func TestHelpHasExamples(t *testing.T) {
	status, out, _ := run([]string{"--help"}, "")
	assert.Zero(t, status)
	assert.Contains(t, out, "Examples:")
	assert.Contains(t, out, "-detector")
}

func TestErrorsNameWhatIsWrong(t *testing.T) {
	header := strings.SplitN(table1, "\n", 2)[0]
	for name, test := range map[string]struct {
		args    []string
		in      string
		status  int
		message string
	}{
		"no file":        {[]string{"--models", models}, "", 2, "one CSV file"},
		"no models":      {[]string{"-"}, "", 2, "--models"},
		"unknown flag":   {[]string{"--x"}, "", 2, "-x"},
		"no set":         {[]string{"--models", t.TempDir(), "-"}, "", 1, "MANIFEST_MISSING"},
		"other detector": {[]string{"--models", models, "--detector", "x", "-"}, "", 1, "UNKNOWN_DETECTOR"},
		"file missing":   {[]string{"--models", models, "nowhere.csv"}, "", 1, "nowhere.csv"},
		"empty":          {[]string{"--models", models, "-"}, "", 1, "empty"},
		"column missing": {[]string{"--models", models, "-"}, "bandwidth,latency\n1,2\n", 1, `"packet_loss"`},
		"not a number":   {[]string{"--models", models, "-"}, header + "\n1,t,2,3,x,5,6,7,8\n", 1, `line 2, column bandwidth: "x"`},
		"not finite":     {[]string{"--models", models, "-"}, header + "\n1,t,2,3,NaN,5,6,7,8\n", 1, "NOT_FINITE"},
	} {
		t.Run(name, func(t *testing.T) {
			status, _, messages := run(test.args, test.in)
			assert.Equal(t, test.status, status)
			assert.Contains(t, messages, test.message)
		})
	}
}
