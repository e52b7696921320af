package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"dwcp.internal/anomaly/internal/server"
)

const models = "../../../models/reference/v1"

func run(args []string, signals <-chan os.Signal) (status int, out, messages string) {
	var o, m bytes.Buffer
	status = command(args, signals, &o, &m)
	return status, o.String(), m.String()
}

func TestServesUntilASignal(t *testing.T) {
	signals := make(chan os.Signal, 1)
	signals <- syscall.SIGTERM
	path := filepath.Join(t.TempDir(), "s")
	status, out, messages := run([]string{"--models", models, "--unix", path, "--grace", "0.5", "--max-in-flight", "2"}, signals)
	require.Zero(t, status, messages)
	assert.Empty(t, messages)
	assert.Regexp(t, `^ready unix:`+path+` model_set=[0-9a-f]{64}\n$`, out)
}

func TestLoopbackUnlessAsked(t *testing.T) {
	for listen, args := range map[string][]string{
		server.DefaultListen: {"--models", "m"}, "": {"--models", "m", "--unix", "s"}, "0.0.0.0:1": {"--models", "m", "--listen", "0.0.0.0:1"},
	} {
		s, err := parseFlags(args, nil)
		require.NoError(t, err)
		assert.Equal(t, listen, s.Listen)
	}
}

func TestHelpHasExamples(t *testing.T) {
	status, out, _ := run([]string{"--help"}, nil)
	assert.Zero(t, status)
	for _, part := range []string{"Examples:", "-listen", "-max-in-flight"} {
		assert.Contains(t, out, part)
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	for name, test := range map[string]struct {
		args    []string
		status  int
		message string
	}{
		"no models":    {nil, 2, "--models"},
		"unknown flag": {[]string{"--models", models, "--x"}, 2, "-x"},
		"argument":     {[]string{"--models", models, "x"}, 2, `"x"`},
		"no set":       {[]string{"--models", t.TempDir()}, 1, "MANIFEST_MISSING"},
		"no host":      {[]string{"--models", models, "--listen", ":50051"}, 1, "127.0.0.1:50051"},
		"grace":        {[]string{"--models", models, "--grace", "NaN"}, 1, "--grace"},
		"in flight":    {[]string{"--models", models, "--max-in-flight", "0"}, 1, "--max-in-flight"},
	} {
		t.Run(name, func(t *testing.T) {
			status, out, messages := run(test.args, nil)
			assert.Equal(t, test.status, status)
			assert.Empty(t, out)
			assert.Contains(t, messages, test.message)
			assert.Equal(t, 1, strings.Count(messages, "\n"), "one line")
		})
	}
}
