package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

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
	for _, part := range []string{"Examples:", "-listen", "-max-in-flight", "-stream-idle", "-tls-client-ca", "-metrics"} {
		assert.Contains(t, out, part)
	}
}

func TestLogsAsJSON(t *testing.T) {
	signals := make(chan os.Signal, 1)
	signals <- syscall.SIGTERM
	status, _, messages := run([]string{"--models", models, "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--log-format", "json"}, signals)
	require.Zero(t, status, messages)
	var line map[string]any
	require.NoError(t, json.Unmarshal([]byte(messages), &line))
	assert.Regexp(t, `^http://127\.0\.0\.1:\d+/metrics$`, line["url"])
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
		"streams":      {[]string{"--models", models, "--max-streams", "0"}, 1, "--max-streams"},
		"series":       {[]string{"--models", models, "--max-series", "-1"}, 1, "--max-series"},
		"idle":         {[]string{"--models", models, "--stream-idle", "0"}, 1, "--stream-idle"},
		"watch":        {[]string{"--models", models, "--watch", "-1"}, 1, "--watch"},
		"reflection":   {[]string{"--models", models, "--reflection", "no"}, 1, "--reflection"},
		"log format":   {[]string{"--models", models, "--log-format", "xml"}, 2, "--log-format"},
		"metrics":      {[]string{"--models", models, "--metrics", ":9101"}, 1, "--metrics"},
		"key missing":  {[]string{"--models", models, "--tls-cert", "x"}, 1, "--tls-key"},
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

func TestHealth(t *testing.T) {
	signals, path := make(chan os.Signal, 1), filepath.Join(t.TempDir(), "s")
	served := make(chan struct{})
	go func() {
		defer close(served)
		run([]string{"--models", models, "--unix", path}, signals)
	}()
	ask := func(more ...string) (int, string, string) {
		return run(append([]string{"health", "--address", "unix:" + path}, more...), nil)
	}
	require.Eventually(t, func() bool {
		status, out, _ := ask()
		return status == 0 && out == "SERVING\n"
	}, 20*time.Second, 20*time.Millisecond)
	status, _, messages := ask("--service", "nothing")
	assert.Equal(t, 1, status)
	assert.Contains(t, messages, "NotFound")
	signals <- syscall.SIGHUP // no end
	time.Sleep(50 * time.Millisecond)
	status, _, messages = ask()
	assert.Zero(t, status, messages)
	signals <- syscall.SIGTERM
	<-served
	status, _, messages = ask("--timeout", "0.5")
	assert.Equal(t, 1, status)
	assert.Contains(t, messages, path)

	for _, args := range [][]string{{"health"}, {"health", "--nothing"}} {
		status, _, _ := run(args, nil)
		assert.Equal(t, 2, status)
	}
	status, out, _ := run([]string{"health", "--help"}, nil)
	assert.Zero(t, status)
	assert.Contains(t, out, "Examples")
}
