package server

import (
	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// decoder reads a request from its bytes, which it does not keep.
type decoder interface{ decode(b []byte) error }

// encoder writes its answer.
type encoder interface{ encode() mem.BufferSlice }

// codec is the codec of gRPC, but our own calls decode and encode themselves, and are released when they are encoded.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2(grpcproto.Name)} }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	switch answer := v.(type) {
	case encoder:
		return answer.encode(), nil
	case interface {
		message() proto.Message
		release()
	}:
		defer answer.release()
		return c.CodecV2.Marshal(answer.message())
	default:
		return c.CodecV2.Marshal(v)
	}
}

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	request, ok := v.(decoder)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	buffer := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buffer.Free()
	return request.decode(buffer.ReadOnlyData())
}
