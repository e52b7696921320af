package main

import (
	"context"
	"fmt"
	"io"
	"net"

	"google.golang.org/grpc"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// echoService answers the scoring calls with the request's own bytes: what gRPC in Go costs when the answer costs nothing.
var echoService = grpc.ServiceDesc{
	ServiceName: anomalyv1.ScoringService_ServiceDesc.ServiceName,
	Methods: []grpc.MethodDesc{
		{MethodName: "Score", Handler: echo},
		{MethodName: "ScoreBatch", Handler: echo},
	},
	Streams: []grpc.StreamDesc{{StreamName: "ScoreStream", Handler: echoStream, ServerStreams: true, ClientStreams: true}},
}

func echo(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	m := &message{keep: true}
	return m, decode(m)
}

func echoStream(_ any, stream grpc.ServerStream) error {
	m := &message{keep: true}
	for {
		if err := stream.RecvMsg(m); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := stream.SendMsg(m); err != nil {
			return err
		}
	}
}

func newEchoServer() *grpc.Server {
	server := grpc.NewServer(grpc.ForceServerCodecV2(codec{}), grpc.MaxRecvMsgSize(65<<20), grpc.MaxSendMsgSize(65<<20))
	server.RegisterService(&echoService, nil)
	return server
}

// runEcho serves until SIGTERM or SIGINT. It prints `ready ADDRESS` when it answers.
func runEcho(address string, out io.Writer) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := newEchoServer()
	signals := stopSignal()
	go func() {
		<-signals
		server.Stop()
	}()
	fmt.Fprintln(out, "ready", listener.Addr())
	return server.Serve(listener)
}
