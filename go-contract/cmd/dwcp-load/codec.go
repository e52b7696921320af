package main

import (
	"errors"

	"google.golang.org/grpc/mem"
)

// message is one gRPC message as bytes.
type message struct {
	bytes []byte
	// size is set where bytes are not kept: see codec.
	size int
	keep bool
}

// codec hands bytes through, so that the client spends nothing on protobuf. Answers are dropped unless the message says keep.
type codec struct{}

func (codec) Name() string { return "proto" }

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(*message)
	if !ok {
		return nil, errors.New("not a *message")
	}
	return mem.BufferSlice{mem.SliceBuffer(m.bytes)}, nil
}

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(*message)
	if !ok {
		return errors.New("not a *message")
	}
	m.size = data.Len()
	if m.keep {
		m.bytes = data.Materialize()
	}
	return nil
}
