package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
)

const healthUsage = `Asks a running sidecar for its health (grpc.health.v1), for probes that run a command.

Examples:
  dwcp-sidecar-go health --address unix:/run/dwcp/score.sock
  dwcp-sidecar-go health --address 127.0.0.1:50051 --service dwcp.anomaly.v1.ScoringService/lstm_autoencoder

It prints what the sidecar says. The exit status is 0 for SERVING, else 1. It speaks plain text: where the TCP address
has TLS, ask through the unix socket.

Flags:
`

// healthCommand is `dwcp-sidecar-go health`: 0 when the sidecar serves, 1 when not, 2 for wrong usage.
func healthCommand(args []string, out, messages io.Writer) int {
	flags := flag.NewFlagSet("dwcp-sidecar-go health", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	address := flags.String("address", "", "`address` of the sidecar: HOST:PORT or unix:PATH")
	service := flags.String("service", "", "health `name` (default: the server as a whole)")
	timeout := flags.Float64("timeout", 2, "`seconds` for the answer")
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(out, healthUsage)
		flags.SetOutput(out)
		flags.PrintDefaults()
		return 0
	}
	if err == nil && *address == "" {
		err = errors.New("--address is missing")
	}
	if err != nil {
		fmt.Fprintln(messages, "dwcp-sidecar-go: error:", err)
		return 2
	}
	status, err := askHealth(*address, *service, seconds(*timeout))
	if err == nil && status != grpc_health_v1.HealthCheckResponse_SERVING {
		err = errors.New(status.String())
	}
	if err != nil {
		fmt.Fprintf(messages, "dwcp-sidecar-go: error: %s: %v\n", *address, err)
		return 1
	}
	fmt.Fprintln(out, status)
	return 0
}

func askHealth(address, service string, timeout time.Duration) (grpc_health_v1.HealthCheckResponse_ServingStatus, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return 0, err
	}
	defer connection.Close()
	answer, err := grpc_health_v1.NewHealthClient(connection).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: service})
	return answer.GetStatus(), err
}
