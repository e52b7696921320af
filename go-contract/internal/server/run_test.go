package server

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"

	anomaly "dwcp.internal/anomaly"
	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

const serving, notServing = grpc_health_v1.HealthCheckResponse_SERVING, grpc_health_v1.HealthCheckResponse_NOT_SERVING

func TestHealth(t *testing.T) {
	for _, address := range start(t, openReference(t), 8, silent()).Addresses {
		client := grpc_health_v1.NewHealthClient(connect(t, address))
		for _, name := range []string{
			"", "dwcp.anomaly.v1.ScoringService", "dwcp.anomaly.v1.ScoringService/isolation_forest", "dwcp.anomaly.v1.ScoringService/lstm_autoencoder",
		} {
			answer, err := client.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: name})
			require.NoError(t, err)
			assert.Equal(t, serving, answer.GetStatus(), name)
		}
		_, err := client.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "other"})
		assert.Equal(t, codes.NotFound, status.Code(err))
	}
}

func TestReflection(t *testing.T) {
	connection := connect(t, start(t, openReference(t), 8, silent()).Addresses[0])
	stream, err := reflectionv1alpha.NewServerReflectionClient(connection).ServerReflectionInfo(t.Context())
	require.NoError(t, err)
	require.NoError(t, stream.Send(&reflectionv1alpha.ServerReflectionRequest{
		MessageRequest: &reflectionv1alpha.ServerReflectionRequest_ListServices{},
	}))
	answer, err := stream.Recv()
	require.NoError(t, err)
	var names []string
	for _, s := range answer.GetListServicesResponse().GetService() {
		names = append(names, s.GetName())
	}
	assert.Subset(t, names, []string{fullName, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"})

	current, err := reflectionv1.NewServerReflectionClient(connection).ServerReflectionInfo(t.Context())
	require.NoError(t, err)
	require.NoError(t, current.Send(&reflectionv1.ServerReflectionRequest{
		MessageRequest: &reflectionv1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: fullName},
	}))
	file, err := current.Recv()
	require.NoError(t, err)
	assert.NotEmpty(t, file.GetFileDescriptorResponse().GetFileDescriptorProto())
}

// process is Run with its signals, as far as it goes without a process.
type process struct {
	addresses []string
	line      string
	signals   chan os.Signal
	end       chan error
}

func (p *process) stopped(t *testing.T) error {
	t.Helper()
	select {
	case err := <-p.end:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("it does not stop")
		return nil
	}
}

func run(t *testing.T, settings Settings) *process {
	t.Helper()
	if settings.Models == "" {
		settings.Models = referenceSet
	}
	settings.Limits = limits(8)
	p := &process{signals: make(chan os.Signal, 2), end: make(chan error, 1)}
	out, in := io.Pipe()
	go func() {
		err := Run(settings, p.signals, in, silent())
		in.Close()
		p.end <- err
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	go func() { _, _ = io.Copy(io.Discard, out) }()
	words := strings.Fields(line)
	require.Equal(t, "ready", words[0])
	if settings.Models == referenceSet {
		require.Equal(t, "model_set="+openReference(t).ID(), words[len(words)-1])
	}
	p.line, p.addresses = line, words[1:len(words)-1]
	return p
}

func TestReadyLineAndFile(t *testing.T) {
	folder := t.TempDir()
	socket, ready := filepath.Join(folder, "s"), filepath.Join(folder, "ready")
	p := run(t, Settings{Listen: "127.0.0.1:0", Unix: socket, ReadyFile: ready, Grace: time.Minute})
	require.Len(t, p.addresses, 2)
	assert.Regexp(t, `^127\.0\.0\.1:[1-9]\d*$`, p.addresses[0])
	assert.Equal(t, "unix:"+socket, p.addresses[1])
	data, err := os.ReadFile(ready)
	require.NoError(t, err)
	assert.Equal(t, p.line, string(data))
	info, err := os.Stat(socket)
	require.NoError(t, err)
	assert.Equal(t, os.ModeSocket|0o660, info.Mode())
	p.signals <- syscall.SIGTERM
	require.NoError(t, p.stopped(t))
	left, err := os.ReadDir(folder)
	require.NoError(t, err)
	assert.Empty(t, left)
}

// TestGracefulStop: a call in flight gets its answer, new ones are refused, watchers are told.
func TestGracefulStop(t *testing.T) {
	p := run(t, Settings{Listen: "127.0.0.1:0", Grace: time.Minute})
	connection := connect(t, p.addresses[0])
	watch, err := grpc_health_v1.NewHealthClient(connection).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: fullName})
	require.NoError(t, err)
	answer, err := watch.Recv()
	require.NoError(t, err)
	require.Equal(t, serving, answer.GetStatus())

	const items = 500
	long := batchRequestOf(lstm, rowsOf(items+9)...)
	long.Layout, long.Explain = anomalyv1.BatchLayout_BATCH_LAYOUT_SERIES, anomalyv1.Explain_EXPLAIN_ALWAYS
	result := make(chan error, 1)
	go func() {
		scored, err := anomalyv1.NewScoringServiceClient(connection).ScoreBatch(t.Context(), long)
		if err == nil && len(scored.GetScores()) != items {
			err = errors.New("not all were scored")
		}
		result <- err
	}()
	time.Sleep(50 * time.Millisecond) // it is on its way
	p.signals <- os.Interrupt
	answer, err = watch.Recv()
	require.NoError(t, err)
	require.Equal(t, notServing, answer.GetStatus())
	require.Eventually(t, func() bool {
		_, err := net.Dial("tcp", p.addresses[0])
		return errors.Is(err, syscall.ECONNREFUSED)
	}, 10*time.Second, time.Millisecond)
	require.NoError(t, <-result)
	require.NoError(t, connection.Close())
	require.NoError(t, p.stopped(t))
}

func TestASecondSignalEndsCallsInFlight(t *testing.T) {
	p := run(t, Settings{Listen: "127.0.0.1:0", Grace: time.Hour})
	watch, err := grpc_health_v1.NewHealthClient(connect(t, p.addresses[0])).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	require.NoError(t, err)
	for _, want := range []grpc_health_v1.HealthCheckResponse_ServingStatus{serving, notServing} {
		answer, err := watch.Recv()
		require.NoError(t, err)
		require.Equal(t, want, answer.GetStatus())
		p.signals <- syscall.SIGTERM
	}
	require.NoError(t, p.stopped(t))
	_, err = watch.Recv()
	require.Error(t, err)
}

// TestTheGraceEnds, also with a scorer that never answers and a client that never speaks.
func TestTheGraceEnds(t *testing.T) {
	never := make(chan struct{})
	defer close(never)
	scorer, asked := bent{openReference(t), nil}, make(chan struct{}, 1)
	scorer.score = func(context.Context) error {
		asked <- struct{}{}
		<-never
		return nil
	}
	s, err := New(scorer, Settings{Listen: "127.0.0.1:0", Limits: limits(1)}, silent())
	require.NoError(t, err)
	require.NoError(t, s.Start())
	silentClient, err := net.Dial("tcp", s.Addresses[0])
	require.NoError(t, err)
	defer silentClient.Close()
	go func() {
		_ = connect(t, s.Addresses[0]).Invoke(t.Context(), scoreMethod, scoreRequestOf(forest, row()), new(anomalyv1.ScoreResponse))
	}()
	<-asked
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begin := time.Now()
	s.Stop(ctx)
	require.Less(t, time.Since(begin), 4*time.Second)
}

func TestPortInUse(t *testing.T) {
	s := start(t, openReference(t), 8, silent())
	_, port, err := net.SplitHostPort(s.Addresses[0])
	require.NoError(t, err)
	for _, host := range []string{"127.0.0.1", "localhost"} {
		socket := filepath.Join(t.TempDir(), "s")
		second, err := New(openReference(t), Settings{Listen: host + ":" + port, Unix: socket, Limits: limits(1)}, silent())
		require.NoError(t, err)
		err = second.Start()
		require.ErrorAs(t, err, new(StartError))
		for _, part := range []string{port, "in use", "--listen"} {
			assert.ErrorContains(t, err, part)
		}
		assert.NoFileExists(t, socket)
	}
}

func TestAFreedPortCanBeHadAgainAtOnce(t *testing.T) {
	probe, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := probe.Addr().String()
	require.NoError(t, probe.Close())
	for range 2 {
		p := run(t, Settings{Listen: address, Grace: time.Minute})
		require.NoError(t, dial(t, p.addresses[0]).Close())
		p.signals <- syscall.SIGTERM
		require.NoError(t, p.stopped(t))
	}
}

func TestSockets(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "s")

	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	require.NoError(t, err)
	stale.SetUnlinkOnClose(false) // as a server that is killed leaves it
	require.NoError(t, stale.Close())
	listener, address, err := listenUnix(path)
	require.NoError(t, err, "a stale socket is replaced")
	assert.Equal(t, "unix:"+path, address)

	_, _, err = listenUnix(path)
	require.ErrorContains(t, err, "another server listens there")
	_, err = net.Dial("unix", path)
	require.NoError(t, err, "and is left alone")
	require.NoError(t, listener.Close())
	assert.NoFileExists(t, path)

	notes := filepath.Join(folder, "notes.txt")
	require.NoError(t, os.WriteFile(notes, []byte("keep me"), 0o600))
	_, _, err = listenUnix(notes)
	require.ErrorContains(t, err, "no socket")
	assert.FileExists(t, notes)

	for _, path := range []string{filepath.Join(folder, strings.Repeat("x", 120)), filepath.Join(folder, "no", "s"), filepath.Join(notes, "s")} {
		_, _, err := listenUnix(path)
		require.ErrorAs(t, err, new(StartError))
	}
}

func TestSettingsThatAreRefused(t *testing.T) {
	for name, s := range map[string]Settings{
		"nothing":   {Limits: limits(1)},
		"in flight": {Limits: limits(0), Listen: DefaultListen},
		"grace":     {Limits: limits(1), Listen: DefaultListen, Grace: -1},
	} {
		_, err := New(openReference(t), s, silent())
		assert.ErrorAs(t, err, new(StartError), name)
	}
	for _, address := range []string{":50051", "50051", "localhost", "127.0.0.1:http", "127.0.0.1:70000", "127.0.0.1:", "127.0.0.1:-1", "[]:1"} {
		_, err := New(openReference(t), Settings{Limits: limits(1), Listen: address}, silent())
		assert.ErrorAs(t, err, new(StartError), address)
	}
	for address, want := range map[string]string{"127.0.0.1:0": "127.0.0.1:", "localhost:0": "127.0.0.1:", "[::1]:0": "[::1]:"} {
		listener, got, err := listenTCP(address)
		if address == "[::1]:0" && err != nil {
			continue // a machine without IPv6
		}
		require.NoError(t, err)
		assert.True(t, strings.HasPrefix(got, want), got)
		assert.Equal(t, got, listener.Addr().String(), "nothing but what was asked for")
		require.NoError(t, listener.Close())
	}
	for number, want := range map[string]string{"0.0.0.0": "tcp4", "127.0.0.1": "tcp4", "::1": "tcp", "::": "tcp"} {
		assert.Equal(t, want, network(netip.MustParseAddr(number)), number)
	}
	_, _, err := listenTCP("no-such-host.invalid:0")
	assert.ErrorAs(t, err, new(StartError))
}

func TestWhatRunRefuses(t *testing.T) {
	err := Run(Settings{Models: t.TempDir(), Listen: "127.0.0.1:0", Limits: limits(1)}, nil, io.Discard, silent())
	require.ErrorIs(t, err, anomaly.CodeManifestMissing)
	err = Run(Settings{Models: referenceSet, Listen: "127.0.0.1:0", Limits: limits(1), ReadyFile: filepath.Join(t.TempDir(), "no", "ready")}, nil, io.Discard, silent())
	require.ErrorContains(t, err, "--ready-file")
}
