package server

import (
	"context"

	"google.golang.org/grpc"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
	oipv2 "dwcp.internal/anomaly/gen/dwcp/oip/v2"
)

// method is one method of a service.
type method struct {
	name string
	// limited says whether its calls count as in flight (rule L2).
	limited bool
	// always says whether it is answered by a server that is stopping.
	always bool
	// call gives the memory of a call; nil for a stream.
	call func() call
}

// services are the methods of each service by the generated description. Nothing else is counted, so that a stranger cannot make
// series (rule M2).
var services = []struct {
	generated *grpc.ServiceDesc
	methods   []method
}{
	{&anomalyv1.ScoringService_ServiceDesc, []method{
		{name: "Score", limited: true, call: func() call { return scoreCalls.Get().(*scoreCall) }},
		{name: "ScoreBatch", limited: true, call: func() call { return batchCalls.Get().(*batchCall) }},
		{name: "GetModelSet", call: func() call { return new(modelSetCall) }},
		{name: "ScoreStream"},
	}},
	{&anomalyv1.OperationsService_ServiceDesc, []method{
		{name: "Reload", call: func() call { return new(reloadCall) }},
	}},
	{&oipv2.GRPCInferenceService_ServiceDesc, []method{
		{name: "ServerLive", always: true, call: func() call { return new(serverLiveCall) }},
		{name: "ServerReady", always: true, call: func() call { return new(serverReadyCall) }},
		{name: "ModelReady", always: true, call: func() call { return new(modelReadyCall) }},
		{name: "ServerMetadata", call: func() call { return new(serverMetadataCall) }},
		{name: "ModelMetadata", call: func() call { return new(modelMetadataCall) }},
		{name: "ModelInfer", limited: true, call: func() call { return inferCalls.Get().(*inferCall) }},
	}},
}

// methodAt finds a method by its path.
var methodAt = func() map[string]method {
	found := map[string]method{}
	for _, service := range services {
		for _, m := range service.methods {
			found["/"+service.generated.ServiceName+"/"+m.name] = m
		}
	}
	return found
}()

// register tells gRPC about all services. The descriptions are the generated ones with other handlers: they take calls from pools, and
// bytes that are no message are INVALID_REQUEST, where gRPC on its own would answer INTERNAL.
func (s *service) register(to *grpc.Server) {
	for _, service := range services {
		description := *service.generated
		description.HandlerType, description.Methods, description.Streams = (*any)(nil), nil, nil
		for _, m := range service.methods {
			if m.call == nil {
				description.Streams = append(description.Streams, grpc.StreamDesc{
					StreamName: m.name, ClientStreams: true, ServerStreams: true,
					Handler: func(_ any, stream grpc.ServerStream) error { return s.scoreStream(stream) },
				})
				continue
			}
			counts := s.metrics.methods[m.name]
			handler := func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				return s.serve(ctx, &m, counts, decode)
			}
			description.Methods = append(description.Methods, grpc.MethodDesc{MethodName: m.name, Handler: handler})
		}
		to.RegisterService(&description, s)
	}
}
