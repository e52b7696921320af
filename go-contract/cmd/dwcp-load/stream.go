package main

import (
	"context"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

var bothWays = &grpc.StreamDesc{StreamName: "ScoreStream", ClientStreams: true, ServerStreams: true}

// runStream keeps its share of the outstanding samples on their way, in one stream: whenever an answer comes, it sends the next message. One
// goroutine does both; it cannot block itself, for all answers on their way fit into the flow-control window.
func runStream(ctx context.Context, connection *grpc.ClientConn, work *workload, s settings, number int, stages *clock, t *tally) {
	stream, err := openStream(ctx, connection, work)
	if err != nil {
		t.record(0, err)
		return
	}
	sent := make([]time.Time, s.outstanding/(s.streams*work.rows)) // when the messages on their way were sent, as a ring
	var request message
	answer := message{keep: !s.unchecked}
	send := func(i int) error {
		request.bytes = work.requests[(i+number)%len(work.requests)]
		sent[i%len(sent)] = time.Now()
		return stream.SendMsg(&request)
	}
	for i := range sent {
		if err = send(i); err != nil {
			break
		}
	}
	for i := 0; err == nil && !stages.over(); i++ {
		if err = stream.RecvMsg(&answer); err != nil {
			break
		}
		if !s.unchecked && results(answer.bytes) != work.rows {
			err = status.Errorf(codes.DataLoss, "an answer to %d samples has %d results", work.rows, results(answer.bytes))
			break
		}
		if stages.measuring() {
			t.record(time.Since(sent[i%len(sent)]), nil)
		}
		err = send(i)
	}
	if err == io.EOF { // the stream ended while it was sent to; its status is what is received
		err = stream.RecvMsg(&answer)
	}
	if err != nil {
		t.record(0, err)
		return
	}
	stream.CloseSend()
	for err == nil { // the answers on their way; then the stream must end with OK
		err = stream.RecvMsg(&answer)
	}
	if err != io.EOF {
		t.record(0, err)
	}
}

// results counts the results in a ScoreStreamResponse, which are its field 1. It costs less than unmarshalling them.
func results(answer []byte) (n int) {
	for len(answer) > 0 {
		number, _, size := protowire.ConsumeField(answer)
		if size < 0 {
			return -1
		}
		if number == 1 {
			n++
		}
		answer = answer[size:]
	}
	return n
}

// openStream opens a stream, sends its settings and waits for their answer.
func openStream(ctx context.Context, connection *grpc.ClientConn, work *workload) (grpc.ClientStream, error) {
	stream, err := connection.NewStream(ctx, bothWays, work.method)
	if err != nil {
		return nil, err
	}
	if err := stream.SendMsg(&message{bytes: work.settings}); err != nil && err != io.EOF {
		return nil, err
	}
	return stream, stream.RecvMsg(&message{})
}

// askStreamOnce sends one message on a stream of its own.
func askStreamOnce(ctx context.Context, connection *grpc.ClientConn, work *workload, answer *message) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := openStream(ctx, connection, work)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(&message{bytes: work.requests[0]}); err != nil && err != io.EOF {
		return err
	}
	return stream.RecvMsg(answer)
}
