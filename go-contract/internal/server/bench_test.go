package server

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	anomaly "dwcp.internal/anomaly"
	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// BenchmarkUnaryScore measures Score over real connections, with 1 and 64 calls at a time, in requests a second and the 99th
// percentile of the latency. DWCP_BENCH_ADDRESS names a running server to measure instead of one in this process.
func BenchmarkUnaryScore(b *testing.B) {
	address := os.Getenv("DWCP_BENCH_ADDRESS")
	if address == "" {
		address = start(b, openReference(b), 1024, silent()).Addresses[0]
	}
	for _, d := range []anomaly.Detector{forest, lstm} {
		for _, at := range []struct{ calls, connections int }{{1, 1}, {64, 1}, {64, 4}} {
			b.Run(fmt.Sprintf("%s/c=%d/connections=%d", d, at.calls, at.connections), func(b *testing.B) {
				benchmarkUnary(b, address, d, at.calls, at.connections)
			})
		}
	}
}

func benchmarkUnary(b *testing.B, address string, d anomaly.Detector, calls, connections int) {
	request := scoreRequestOf(d, rowsOf(map[anomaly.Detector]int{forest: 1, lstm: 10}[d])...)
	var clients []anomalyv1.ScoringServiceClient
	for range connections {
		client := anomalyv1.NewScoringServiceClient(connect(b, address))
		_, err := client.Score(b.Context(), request)
		require.NoError(b, err)
		clients = append(clients, client)
	}
	latencies := make([]time.Duration, b.N)
	var next atomic.Int64
	var workers sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	begin := time.Now()
	for w := range calls {
		workers.Go(func() {
			for i := next.Add(1) - 1; i < int64(b.N); i = next.Add(1) - 1 {
				start := time.Now()
				if _, err := clients[w%connections].Score(context.Background(), request); err != nil {
					b.Error(err)
					return
				}
				latencies[i] = time.Since(start)
			}
		})
	}
	workers.Wait()
	b.ReportMetric(float64(b.N)/time.Since(begin).Seconds(), "requests/s")
	slices.Sort(latencies)
	b.ReportMetric(float64(latencies[b.N*50/100].Microseconds()), "p50-µs")
	b.ReportMetric(float64(latencies[b.N*99/100].Microseconds()), "p99-µs")
}

// BenchmarkStream measures streams over real connections: samples a second and the time of one exchange, with 1 and 64 streams, for
// requests of 1 and of 64 samples.
func BenchmarkStream(b *testing.B) {
	address := os.Getenv("DWCP_BENCH_ADDRESS")
	if address == "" {
		address = start(b, openReference(b), 1024, silent()).Addresses[0]
	}
	for _, d := range []anomaly.Detector{forest, lstm} {
		for _, at := range []struct{ streams, samples int }{{1, 1}, {64, 1}, {1, 64}, {64, 64}} {
			b.Run(fmt.Sprintf("%s/streams=%d/samples=%d", d, at.streams, at.samples), func(b *testing.B) {
				benchmarkStream(b, address, d, at.streams, at.samples)
			})
		}
	}
}

// benchmarkStream sends b.N samples in all.
func benchmarkStream(b *testing.B, address string, d anomaly.Detector, streams, samples int) {
	connection := connect(b, address)
	request := &anomalyv1.ScoreStreamRequest{}
	for range samples {
		request.Samples = append(request.Samples, sampleOf("a link", row()))
	}
	var open []clientStream
	for range streams {
		stream := openStream(b, connection)
		warm := &anomalyv1.ScoreStreamRequest{Settings: settingsOf(d)}
		for range 10 {
			warm.Samples = append(warm.Samples, sampleOf("a link", row()))
		}
		exchange(b, stream, warm)
		open = append(open, stream)
	}
	var left atomic.Int64
	left.Store(int64(b.N))
	var workers sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	begin := time.Now()
	for _, stream := range open {
		workers.Go(func() {
			for left.Add(int64(-samples)) > int64(-samples) {
				if err := stream.Send(request); err != nil {
					b.Error(err)
					return
				}
				if _, err := stream.Recv(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	workers.Wait()
	b.ReportMetric(float64(b.N)/time.Since(begin).Seconds(), "samples/s")
}
