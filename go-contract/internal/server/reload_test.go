package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	anomaly "dwcp.internal/anomaly"
	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// copySet copies the first models of the reference set and keeps only the first scores of each calibration, so that p-values tell the
// copies apart.
func copySet(tb testing.TB, folder string, models, scores int) (id string) {
	tb.Helper()
	require.NoError(tb, os.MkdirAll(folder, 0o755))
	require.NoError(tb, os.CopyFS(folder, os.DirFS(referenceSet)))
	var manifest map[string]any
	path := filepath.Join(folder, anomaly.ManifestFile)
	readJSON(tb, path, &manifest)
	manifest["models"] = manifest["models"].([]any)[:models]
	for _, model := range manifest["models"].([]any) {
		name := model.(map[string]any)["metadata"].(string)
		var metadata map[string]any
		readJSON(tb, filepath.Join(folder, name), &metadata)
		calibration := metadata["calibration"].(map[string]any)
		calibration["scores"] = calibration["scores"].([]any)[:scores]
		data := writeJSON(tb, filepath.Join(folder, name), metadata)
		for _, entry := range manifest["files"].([]any) {
			if file := entry.(map[string]any); file["path"] == name {
				digest := sha256.Sum256(data)
				file["sha256"], file["size"] = hex.EncodeToString(digest[:]), fmt.Sprint(len(data))
			}
		}
	}
	digest := sha256.Sum256(writeJSON(tb, path, manifest))
	return hex.EncodeToString(digest[:])
}

func readJSON(tb testing.TB, path string, to any) {
	tb.Helper()
	data, err := os.ReadFile(path)
	require.NoError(tb, err)
	require.NoError(tb, json.Unmarshal(data, to))
}

// writeJSON replaces a file, as a new one.
func writeJSON(tb testing.TB, path string, from any) []byte {
	tb.Helper()
	data, err := json.Marshal(from)
	require.NoError(tb, err)
	require.NoError(tb, os.WriteFile(path+".new", data, 0o600))
	require.NoError(tb, os.Rename(path+".new", path))
	return data
}

// released is a folder whose `current` leads to one of several sets (rule A6).
type released struct {
	folder string
	ids    []string
}

func release(tb testing.TB, sets, models int) *released {
	tb.Helper()
	r := &released{folder: tb.TempDir()}
	for i := range sets {
		id := copySet(tb, filepath.Join(r.folder, "releases", fmt.Sprint(i)), models, 100+i)
		r.ids = append(r.ids, id)
	}
	r.use(tb, 0)
	entries, err := os.ReadDir(filepath.Join(r.folder, "releases", "0"))
	require.NoError(tb, err)
	for _, entry := range entries {
		require.NoError(tb, os.Symlink(filepath.Join("current", entry.Name()), filepath.Join(r.folder, entry.Name())))
	}
	return r
}

// use switches `current` with one rename.
func (r *released) use(tb testing.TB, i int) {
	tb.Helper()
	link := filepath.Join(r.folder, "current")
	require.NoError(tb, os.Symlink(filepath.Join("releases", fmt.Sprint(i)), link+".new"))
	require.NoError(tb, os.Rename(link+".new", link))
}

// serveFolder serves what a folder holds.
func serveFolder(tb testing.TB, folder string, settings Settings, log *slog.Logger) *Server {
	tb.Helper()
	set, err := anomaly.OpenModelSet(folder)
	require.NoError(tb, err)
	settings.Models, settings.Listen = folder, "127.0.0.1:0"
	if settings.MaxInFlight == 0 {
		settings.Limits = limits(64)
	}
	return startWith(tb, set, settings, log)
}

func reloadBy(tb testing.TB, s *Server) (*anomalyv1.ReloadResponse, error) {
	tb.Helper()
	return anomalyv1.NewOperationsServiceClient(connect(tb, s.Addresses[0])).Reload(tb.Context(), &anomalyv1.ReloadRequest{})
}

// TestSwapsUnderLoad is R2: during 100 swaps no call fails, no answer mixes two sets, and the memory does not grow.
func TestSwapsUnderLoad(t *testing.T) {
	r := release(t, 2, 1) // a forest alone opens sooner
	s := serveFolder(t, r.folder, Settings{}, silent())
	ids := map[string]float64{r.ids[0]: 101, r.ids[1]: 102}
	whole := func(p float64, id string) error { // p is a multiple of 1/(scores + 1)
		n, known := ids[id]
		if k := p * n; !known || k != float64(int(k+.5)) {
			return fmt.Errorf("p-value %v is not of set %.8s", p, id)
		}
		return nil
	}
	odd := row()
	odd[1] = 11.3
	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	var calls [3]atomic.Int64
	keep := func(kind int, do func() error) {
		load.Go(func() {
			for ctx.Err() == nil {
				if err := do(); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
				calls[kind].Add(1)
				time.Sleep(time.Millisecond)
			}
		})
	}
	for range 2 {
		client := anomalyv1.NewScoringServiceClient(connect(t, s.Addresses[0]))
		keep(0, func() error {
			answer, err := client.Score(ctx, scoreRequestOf(forest, odd))
			if err != nil {
				return err
			}
			return whole(answer.GetVerdict().GetPValue(), answer.GetModelSetId())
		})
		keep(1, func() error {
			answer, err := client.ScoreBatch(ctx, batchRequestOf(forest, odd, odd))
			if err != nil {
				return err
			}
			return whole(answer.GetPValues()[1], answer.GetModelSetId())
		})
		stream, err := client.ScoreStream(ctx)
		require.NoError(t, err)
		request := &anomalyv1.ScoreStreamRequest{Settings: settingsOf(forest)}
		for range 20 {
			request.Samples = append(request.Samples, sampleOf("a", odd))
		}
		keep(2, func() error {
			if err := stream.Send(request); err != nil {
				return err
			}
			request.Settings = nil
			answer, err := stream.Recv()
			if err != nil {
				return err
			}
			for _, result := range answer.GetResults() {
				if err := whole(result.GetVerdicts()[0].GetVerdict().GetPValue(), answer.GetModelSetId()); err != nil {
					return err
				}
			}
			return nil
		})
	}
	before, swaps := heap(), 100
	if raceEnabled || testing.Short() {
		swaps = 10
	}
	for i := range swaps {
		r.use(t, (i+1)%2)
		answer, err := reloadBy(t, s)
		require.NoError(t, err)
		require.True(t, answer.GetChanged())
		require.Equal(t, r.ids[(i+1)%2], answer.GetModelSetId())
	}
	cancel()
	load.Wait()
	// What a set is made of is a few MB; 100 of them that stay would be hundreds.
	require.Eventually(t, func() bool { return heap() < before+16<<20 }, 10*time.Second, 100*time.Millisecond)
	for kind := range calls {
		assert.NotZero(t, calls[kind].Load())
	}
}

// heap is the number of bytes in use after a collection.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestReloadCallsShareOutcomes is R5.
func TestReloadCallsShareOutcomes(t *testing.T) {
	r := release(t, 1, 1)
	s := serveFolder(t, r.folder, Settings{}, silent())
	var opened atomic.Int64
	goOn := make(chan struct{})
	started := make(chan struct{}, 10)
	s.service.reloader.open = func(folder string) (served, error) {
		opened.Add(1)
		started <- struct{}{}
		<-goOn
		return openServed(folder, Settings{})
	}
	reloader := s.service.reloader
	first := reloader.join()
	<-started // it has looked
	second, third := reloader.join(), reloader.join()
	require.NotSame(t, first, second)
	require.Same(t, second, third)
	close(goOn)
	<-second.done
	<-first.done
	assert.EqualValues(t, 2, opened.Load())
	assert.False(t, second.changed)
	assert.Equal(t, r.ids[0], second.id)
	require.NoError(t, second.err)
}

// TestTheWatcherSwaps is R1 and R3, with the names of health and GetModelSet following.
func TestTheWatcherSwaps(t *testing.T) {
	var text lockedBuffer
	r := release(t, 2, 2)
	s := serveFolder(t, r.folder, Settings{Watch: 20 * time.Millisecond}, slog.New(slog.NewTextHandler(&text, nil)))
	connection := connect(t, s.Addresses[0])
	client := anomalyv1.NewScoringServiceClient(connection)
	id := func() string {
		answer, err := client.GetModelSet(t.Context(), &anomalyv1.GetModelSetRequest{})
		require.NoError(t, err)
		return answer.GetModelSetId()
	}
	becomes := func(i int) {
		t.Helper()
		require.Eventually(t, func() bool { return id() == r.ids[i] }, 20*time.Second, 5*time.Millisecond)
	}
	refusals := func(n int) {
		t.Helper()
		require.Eventually(t, func() bool { return strings.Count(text.String(), "model set refused") == n }, 20*time.Second, 5*time.Millisecond)
	}
	r.use(t, 1)
	becomes(1)

	// Damage of any kind is refused once, and the set in use answers.
	graph := filepath.Join(r.folder, "releases", "0", "isolation_forest.onnx")
	data, err := os.ReadFile(graph)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(graph, data[:len(data)/2], 0o600))
	r.use(t, 0)
	refusals(1)
	time.Sleep(200 * time.Millisecond)
	refusals(1)
	assert.Contains(t, text.String(), "code=DIGEST_MISMATCH file=isolation_forest.onnx")
	_, err = reloadBy(t, s)
	assertRefused(t, err, anomaly.CodeDigestMismatch, "isolation_forest.onnx")
	refusals(2)
	require.NoError(t, os.Rename(filepath.Join(r.folder, "releases"), filepath.Join(r.folder, "gone")))
	refusals(3)
	_, err = reloadBy(t, s)
	assertRefused(t, err, anomaly.CodeManifestMissing, anomaly.ManifestFile)
	require.Equal(t, r.ids[1], id())
	_, err = client.Score(t.Context(), scoreRequestOf(lstm, rowsOf(10)...))
	require.NoError(t, err)

	require.NoError(t, os.WriteFile(filepath.Join(r.folder, "gone", "0", "isolation_forest.onnx"), data, 0o600))
	require.NoError(t, os.Rename(filepath.Join(r.folder, "gone"), filepath.Join(r.folder, "releases")))
	becomes(0)
	require.Eventually(t, func() bool { return strings.Count(text.String(), "model set swapped") == 2 }, 20*time.Second, 5*time.Millisecond)
}

// TestAFolderThatChangesIsNotJudged is R1: not while a set is being copied, and not twice.
func TestAFolderThatChangesIsNotJudged(t *testing.T) {
	r := release(t, 2, 1)
	reloader := serveFolder(t, r.folder, Settings{}, silent()).service.reloader
	var before look
	ripe := func() (is bool) {
		before, is = reloader.ripe(before)
		return is
	}
	assert.False(t, ripe())
	assert.False(t, ripe(), "nothing changed")
	file := filepath.Join(r.folder, "releases", "0", "growing")
	for i := range 5 {
		require.NoError(t, os.WriteFile(file, make([]byte, i), 0o600))
		assert.False(t, ripe(), "it changes")
	}
	assert.True(t, ripe())
	<-reloader.join().done
	assert.False(t, ripe())
	assert.False(t, ripe(), "it is judged")
	for _, step := range []struct {
		name   string
		change func()
	}{
		{"another file of the same size and time", func() {
			info, err := os.Stat(file)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(file+".new", make([]byte, info.Size()), 0o600))
			require.NoError(t, os.Chtimes(file+".new", time.Time{}, info.ModTime()))
			require.NoError(t, os.Rename(file+".new", file))
		}},
		{"another set", func() { r.use(t, 1) }},
		{"a link replaced by a file", func() {
			link := filepath.Join(r.folder, "isolation_forest.onnx")
			require.NoError(t, os.Remove(link))
			require.NoError(t, os.WriteFile(link, nil, 0o600))
		}},
		{"no folder", func() { require.NoError(t, os.RemoveAll(r.folder)) }},
	} {
		step.change()
		assert.False(t, ripe(), step.name)
		assert.True(t, ripe(), step.name)
		<-reloader.join().done
		assert.False(t, ripe(), step.name)
	}
}

// TestStreamsAndReloads is ST6.
func TestStreamsAndReloads(t *testing.T) {
	r := release(t, 2, 2)
	s := serveFolder(t, r.folder, Settings{}, silent())
	connection := connect(t, s.Addresses[0])
	request := &anomalyv1.ScoreStreamRequest{Settings: settingsOf(lstm, forest)}
	for range 9 {
		request.Samples = append(request.Samples, sampleOf("a", row()))
	}
	free, pinned := openStream(t, connection), openStream(t, connection)
	exchange(t, free, request)
	request.Settings.ModelSetId = r.ids[0]
	exchange(t, pinned, request)
	r.use(t, 1)
	_, err := reloadBy(t, s)
	require.NoError(t, err)
	_, err = pinned.Recv()
	assertRefused(t, err, anomaly.CodeModelSetMismatch, "settings.model_set_id")
	next := &anomalyv1.ScoreStreamRequest{Samples: request.GetSamples()[:1]}
	answer := exchange(t, free, next)
	assert.Equal(t, r.ids[1], answer.GetModelSetId())
	assert.NotNil(t, answer.GetResults()[0].GetVerdicts()[0].GetVerdict(), "the window stays")

	// A set without the autoencoder, and back.
	forestSet := forestAlone(t)
	s.service.swap(forestSet)
	for _, d := range []anomaly.Detector{forest, lstm} {
		answer, err := grpc_health_v1.NewHealthClient(connection).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: HealthName(d)})
		require.NoError(t, err)
		assert.Equal(t, d == forest, answer.GetStatus() == serving)
	}
	answer = exchange(t, free, next)
	gone := answer.GetResults()[0].GetVerdicts()
	assert.Equal(t, anomaly.CodeDetectorUnavailable, anomaly.Code(gone[0].GetError().GetCode()))
	assert.NotNil(t, gone[1].GetVerdict())
	s.service.swap(openReference(t))
	answer = exchange(t, free, next)
	assert.NotNil(t, answer.GetResults()[0].GetVerdicts()[0].GetVerdict(), "and stays while the detector is away")
	exchange(t, free, &anomalyv1.ScoreStreamRequest{Samples: []*anomalyv1.StreamSample{sampleOf("a", row()), sampleOf("b", row()[:1])}})
	s.service.swap(renamed{openReference(t)})
	answer = exchange(t, free, next)
	assert.Equal(t, anomaly.CodeWindowTooShort, anomaly.Code(answer.GetResults()[0].GetVerdicts()[0].GetError().GetCode()), "other features")
}

// renamed is a scorer with another name for its first feature.
type renamed struct{ anomaly.Scorer }

func (r renamed) ID() string { return strings.Repeat("0", 64) }

func (r renamed) Metadata(d anomaly.Detector) *anomalyv1.ModelMetadata {
	m := proto.CloneOf(r.Scorer.Metadata(d))
	if m == nil {
		return nil
	}
	m.FeatureNames[0] = "other"
	return m
}

// TestHangUpReloads: SIGHUP is Reload, without a pause and without an end.
func TestHangUpReloads(t *testing.T) {
	r := release(t, 2, 2)
	p := run(t, Settings{Models: r.folder, Listen: "127.0.0.1:0", Grace: time.Minute})
	client := anomalyv1.NewScoringServiceClient(connect(t, p.addresses[0]))
	id := func() string {
		answer, err := client.GetModelSet(t.Context(), &anomalyv1.GetModelSetRequest{})
		require.NoError(t, err)
		return answer.GetModelSetId()
	}
	r.use(t, 1)
	p.signals <- syscall.SIGHUP
	require.Eventually(t, func() bool { return id() == r.ids[1] }, 20*time.Second, 10*time.Millisecond)
	p.signals <- syscall.SIGTERM
	require.NoError(t, p.stopped(t))
}

// TestWhoMayAskForAReload is R6. No test listens beyond loopback, so who is trusted and what is refused are looked at apart.
func TestWhoMayAskForAReload(t *testing.T) {
	folder := t.TempDir()
	copySet(t, folder, 1, 100)
	for _, listen := range []string{"127.0.0.1:0", ""} {
		settings := Settings{Models: folder, Listen: listen, Unix: filepath.Join(t.TempDir(), "s"), Limits: limits(8)}
		set, err := anomaly.OpenModelSet(folder)
		require.NoError(t, err)
		s := startWith(t, set, settings, silent())
		for _, address := range s.Addresses {
			client := anomalyv1.NewOperationsServiceClient(connect(t, address))
			_, err := client.Reload(t.Context(), &anomalyv1.ReloadRequest{})
			assert.NoError(t, err, address)
		}
	}
	unix := &net.UnixAddr{Name: "s", Net: "unix"}
	for address, want := range map[string]bool{"127.0.0.1": true, "127.9.9.9": true, "::1": true, "0.0.0.0": false, "::": false, "192.0.2.1": false} {
		assert.Equal(t, want, Settings{}.onlyTrusted([]net.Addr{unix, &net.TCPAddr{IP: net.ParseIP(address)}}), address)
	}
	assert.True(t, Settings{}.onlyTrusted([]net.Addr{unix}))
	err := new(reloadCall).run(t.Context(), &service{}, nil)
	assert.Equal(t, codes.PermissionDenied, status.Code(err), "a service that is not closed to others")
}
