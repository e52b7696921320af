package anomaly_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	anomaly "dwcp.internal/anomaly"
	"dwcp.internal/anomaly/internal/server"
)

const referenceSet = "../models/reference/v1"

// startSidecar serves the reference set on a unix socket, as `dwcp-sidecar-go --models ... --unix ...` does, and gives its address.
func startSidecar(change func(*server.Settings)) (address string, stop func(), err error) {
	set, err := anomaly.OpenModelSet(referenceSet)
	if err != nil {
		return "", nil, err
	}
	folder, err := os.MkdirTemp("", "dwcp")
	if err != nil {
		return "", nil, err
	}
	settings := server.Settings{Models: referenceSet, Unix: filepath.Join(folder, "score.sock"), Limits: server.DefaultLimits()}
	if change != nil {
		change(&settings)
	}
	s, err := server.New(set, settings, slog.New(slog.DiscardHandler))
	if err == nil {
		err = s.Start()
	}
	if err != nil {
		return "", nil, err
	}
	return s.Addresses[0], func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.Stop(ctx)
		os.RemoveAll(folder)
	}, nil
}

// sidecarAddress is where the examples find their sidecar.
var sidecarAddress string

func TestMain(m *testing.M) {
	address, stop, err := startSidecar(nil)
	if err != nil {
		panic(err)
	}
	sidecarAddress = address
	code := m.Run()
	stop()
	os.Exit(code)
}
