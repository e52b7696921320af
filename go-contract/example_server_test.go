package anomaly_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	anomaly "dwcp.internal/anomaly"
	"dwcp.internal/anomaly/internal/server"
	"dwcp.internal/anomaly/internal/testsets"
)

const referenceSet = "../models/reference/v1"

// startSidecar serves the reference set, or another one, on a unix socket, as `dwcp-sidecar-go --models ... --unix ...` does, and gives
// its address.
func startSidecar(change func(*server.Settings)) (address string, stop func(), err error) {
	folder, err := os.MkdirTemp("", "dwcp")
	if err != nil {
		return "", nil, err
	}
	settings := server.Settings{Models: referenceSet, Unix: filepath.Join(folder, "score.sock"), Limits: server.DefaultLimits()}
	if change != nil {
		change(&settings)
	}
	set, err := anomaly.OpenModelSet(settings.Models)
	if err != nil {
		return "", nil, err
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

// sidecarAddress is where the examples find their sidecar, ensembleModels a folder with a model set that has an ensemble.
var sidecarAddress, ensembleModels string

func TestMain(m *testing.M) {
	address, stop, err := startSidecar(nil)
	if err != nil {
		panic(err)
	}
	sidecarAddress = address
	if ensembleModels, err = os.MkdirTemp("", "dwcp"); err != nil {
		panic(err)
	}
	if err := testsets.WriteEnsemble(ensembleModels, referenceSet, "../models/reference/more-v1"); err != nil {
		panic(err)
	}
	code := m.Run()
	stop()
	os.RemoveAll(ensembleModels)
	os.Exit(code)
}
