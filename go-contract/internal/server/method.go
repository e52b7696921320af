package server

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/gzip" // the Python sidecar takes it too
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
	"google.golang.org/protobuf/proto"

	anomaly "dwcp.internal/anomaly"
	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// call is one call of a method with all the memory that it needs. It goes back to where it came from when its answer is encoded.
type call interface {
	// decode reads the request.
	decode(b []byte) error
	// run answers it, into what message gives. An error is an *anomaly.Error.
	run(ctx context.Context, s *service) error
	message() proto.Message
	release()
}

// service is what answers calls.
type service struct {
	scorer   anomaly.Scorer
	modelSet *anomalyv1.GetModelSetResponse
	log      *slog.Logger
	limit    int64
	inFlight atomic.Int64
}

// serve is the way of every call: limit, deadline, decode, run. It is the one place where an error, or a bug, becomes an answer.
func (s *service) serve(ctx context.Context, name string, c call, decode func(any) error) (answer any, err error) {
	defer s.inFlight.Add(-1)
	if s.inFlight.Add(1) > s.limit {
		return nil, s.full()
	}
	defer func() {
		if bug := recover(); bug != nil {
			err = s.refuse(ctx, name, fmt.Errorf("panic: %v\n%s", bug, debug.Stack()))
		}
	}()
	if err := ctx.Err(); err != nil { // nobody reads that answer
		return nil, status.FromContextError(err).Err()
	}
	if err := decode(c); err != nil {
		return nil, s.refuse(ctx, name, &anomaly.Error{Code: anomaly.CodeInvalidRequest, Message: errMalformed.Error()})
	}
	if err := c.run(ctx, s); err != nil {
		c.release()
		return nil, s.refuse(ctx, name, err)
	}
	return c, nil
}

// refuse makes the status of a refusal (rule E4). What is INTERNAL is said in the log, not to the caller.
func (s *service) refuse(ctx context.Context, name string, err error) error {
	refusal := anomaly.AsError(err)
	if refusal.Code == anomaly.CodeInternal {
		if ctx.Err() != nil {
			return status.FromContextError(ctx.Err()).Err()
		}
		s.log.Error(name+" failed", "error", err)
		refusal = &anomaly.Error{Code: anomaly.CodeInternal, Message: "the server failed on this request; its log says why"}
	}
	return anomaly.ToStatus(refusal).Err()
}

func (s *service) full() error {
	return status.Errorf(codes.ResourceExhausted, "%d requests are in flight already; try again later", s.limit)
}

// tap refuses a call before its request is read when serve would refuse it anyway.
func (s *service) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	if s.inFlight.Load() >= s.limit && strings.HasPrefix(info.FullMethodName, "/"+fullName+"/") {
		return nil, s.full()
	}
	return ctx, nil
}

// description describes the service to gRPC. It is the generated one with other handlers: they take calls from pools, and bytes
// that are no message are INVALID_REQUEST, where gRPC on its own would answer INTERNAL.
func description() *grpc.ServiceDesc {
	d := anomalyv1.ScoringService_ServiceDesc
	d.HandlerType = (*any)(nil)
	d.Methods = []grpc.MethodDesc{
		method("Score", &scoreCalls), method("ScoreBatch", &batchCalls), method("GetModelSet", &modelSetCalls),
	}
	return &d
}

func method(name string, calls *sync.Pool) grpc.MethodDesc {
	handler := func(s any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		return s.(*service).serve(ctx, name, calls.Get().(call), decode)
	}
	return grpc.MethodDesc{MethodName: name, Handler: handler}
}

// codec is the codec of gRPC, but calls decode themselves, and are released when they are encoded.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2(grpcproto.Name)} }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	answer, ok := v.(call)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	defer answer.release()
	return c.CodecV2.Marshal(answer.message())
}

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	request, ok := v.(call)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	buffer := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buffer.Free()
	return request.decode(buffer.ReadOnlyData())
}
