package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const models = "../../../models/reference/v1"

func score(t *testing.T, input string, args ...string) string {
	t.Helper()
	var out, messages bytes.Buffer
	status := command(t.Context(), append([]string{"--models", models}, args...), strings.NewReader(input), &out, &messages)
	require.Zero(t, status, messages.String())
	return out.String()
}

// mixedLines are good and bad requests of both detectors.
func mixedLines() string {
	var b strings.Builder
	row := `[100, 10, 0.01, 1, 30, 40, 0.001]`
	for i := range 500 {
		switch i % 7 {
		case 0, 1:
			fmt.Fprintf(&b, `{"id": %d, "detector": "isolation_forest", "samples": [%s, [%d, 10, 0.01, 1, 30, 40, 0.001]]}`, i, row, i)
		case 2, 3:
			window := strings.Repeat(row+", ", 9+i%4) + fmt.Sprintf(`[100, 10, 0.01, 1, %d, 40, 0.001]`, i)
			fmt.Fprintf(&b, `{"id": "w%d", "detector": "lstm_autoencoder", "samples": [%s]}`, i, window)
		case 4:
			fmt.Fprintf(&b, `{"id": %d, "detector": "lstm_autoencoder", "samples": [[1, 2, "NaN", 4, 5, 6, 7]]}`, i)
		case 5:
			fmt.Fprintf(&b, `{"id": %d, "detector": "other", "samples": []}`, i)
		case 6:
			b.WriteString("no json")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func TestAnswersAreInOrderAndDoNotDependOnBatchesAndThreads(t *testing.T) {
	input := mixedLines()
	want := score(t, input, "--threads", "1")
	lines := strings.Split(strings.TrimSuffix(want, "\n"), "\n")
	require.Len(t, lines, 500)
	for i, line := range lines {
		var answer struct {
			ID    any
			Score *float64
			Error *struct{ Code, Field string }
		}
		require.NoError(t, json.Unmarshal([]byte(line), &answer))
		switch i % 7 {
		case 0, 1:
			assert.Equal(t, float64(i), answer.ID)
			assert.NotNil(t, answer.Score)
		case 2, 3:
			assert.Equal(t, fmt.Sprintf("w%d", i), answer.ID)
			assert.NotNil(t, answer.Score)
		case 4:
			assert.Equal(t, "NOT_FINITE samples[0].packet_loss", answer.Error.Code+" "+answer.Error.Field)
		case 5:
			assert.Equal(t, "UNKNOWN_DETECTOR detector", answer.Error.Code+" "+answer.Error.Field)
		case 6:
			assert.Nil(t, answer.ID)
			assert.Equal(t, "INVALID_REQUEST ", answer.Error.Code+" "+answer.Error.Field)
		}
	}
	for _, args := range [][]string{{"--threads", "3"}, {"--batch", "7"}, {"--batch", "1000", "--threads", "2"}} {
		require.Equal(t, want, score(t, input, args...), args)
	}
	require.Equal(t, want, score(t, strings.TrimSuffix(input, "\n")), "the last line feed may be missing")
	require.Empty(t, score(t, ""))
}

func TestAnswersComeWhileTheClientWaits(t *testing.T) {
	requests, toCommand := io.Pipe()
	fromCommand, answers := io.Pipe()
	status := make(chan int)
	go func() {
		code := command(t.Context(), []string{"--models", models}, requests, answers, io.Discard)
		answers.Close()
		status <- code
	}()
	reader := bufio.NewReader(fromCommand)
	for i := range 5 {
		_, err := fmt.Fprintf(toCommand, `{"id": %d, "detector": "isolation_forest", "samples": [[1,2,3,4,5,6,7]]}`+"\n", i)
		require.NoError(t, err)
		line, err := reader.ReadString('\n')
		require.NoError(t, err)
		require.Contains(t, line, fmt.Sprintf(`"id": %d,`, i))
	}
	toCommand.Close()
	require.Zero(t, <-status)
}

func TestGoldenPrintsACountPerDetector(t *testing.T) {
	out := score(t, "", "--golden")
	assert.Regexp(t, `isolation_forest: [1-9]\d* golden vectors, 0 failed\nlstm_autoencoder: [1-9]\d* golden vectors, 0 failed\n`, out)
}

func TestRefusals(t *testing.T) {
	empty, damaged := t.TempDir(), t.TempDir()
	entries, err := os.ReadDir(models)
	require.NoError(t, err)
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(models, e.Name()))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(damaged, e.Name()), append(data, ' '), 0o600))
	}
	for name, test := range map[string]struct {
		args    []string
		status  int
		message string
	}{
		"no set":           {[]string{"--models", empty}, 1, "MANIFEST_MISSING"},
		"remedy":           {[]string{"--models", empty}, 1, "Give the folder that training wrote"},
		"digest":           {[]string{"--models", damaged}, 1, "DIGEST_MISMATCH"},
		"no models":        {nil, 2, "--models is missing"},
		"unknown backend":  {[]string{"--models", models, "--backend", "x"}, 2, "--backend"},
		"no address":       {[]string{"--backend", "sidecar"}, 2, "--address"},
		"no batch":         {[]string{"--models", models, "--batch", "0"}, 2, "--batch"},
		"no thread":        {[]string{"--models", models, "--threads", "0"}, 2, "--threads"},
		"unknown argument": {[]string{"--models", models, "x"}, 2, "unexpected"},
		"nobody listens": {[]string{"--models", models, "--backend", "sidecar", "--address", "unix://" + empty + "/s", "--deadline", "300ms"},
			1, "UNAVAILABLE"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, messages bytes.Buffer
			assert.Equal(t, test.status, command(t.Context(), test.args, strings.NewReader(""), &out, &messages))
			assert.Contains(t, messages.String(), test.message)
			assert.Empty(t, out.String())
		})
	}
}
