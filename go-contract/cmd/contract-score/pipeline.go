package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	anomaly "dwcp.internal/anomaly"
	"dwcp.internal/anomaly/internal/jsonlines"
)

// Lines that go to a worker at once when requests are scored one by one: enough to make handing over cheap.
const linesPerChunk = 64

// maxLineBytes bounds a line; a request of 256 samples stays far below it.
const maxLineBytes = 64 << 20

// chunk is some lines and, once done is closed, their answers.
type chunk struct {
	text    []byte
	ends    []int
	answers []byte
	done    chan struct{}
}

// run answers every line of in with one line of out, in the same order, on several threads.
func run(ctx context.Context, in io.Reader, out io.Writer, s *settings) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// The queue keeps the order: the writer waits for the chunks in the order in which they were read.
	queue := make(chan *chunk, 4*s.threads)
	jobs := make(chan *chunk, 4*s.threads)
	var workers sync.WaitGroup
	for range s.threads {
		workers.Add(1)
		go func() {
			defer workers.Done()
			w := worker{settings: s}
			for c := range jobs {
				c.answers = w.answer(ctx, c, c.answers[:0])
				close(c.done)
			}
		}()
	}
	readError := make(chan error, 1)
	go func() {
		readError <- read(ctx, in, s, func(c *chunk) {
			queue <- c
			jobs <- c
		})
		close(queue)
		close(jobs)
	}()
	buffered := bufio.NewWriterSize(out, 1<<20)
	var writeError error
	for c := range queue {
		<-c.done
		if writeError != nil {
			continue // drain, so that nobody waits for ever
		}
		if _, err := buffered.Write(c.answers); err != nil {
			writeError = err
		} else if len(queue) == 0 { // a client that waits for this answer gets it now
			writeError = buffered.Flush()
		}
		if writeError != nil {
			cancel(writeError)
		}
	}
	workers.Wait()
	return errors.Join(<-readError, writeError, ignore(writeError, buffered.Flush))
}

// ignore calls f unless there was an error before it.
func ignore(before error, f func() error) error {
	if before != nil {
		return nil
	}
	return f()
}

// read cuts the input into chunks of lines. With single requests, a chunk ends early when no further line has arrived, so that a
// client can wait for each answer; a batch waits for its full number of lines.
func read(ctx context.Context, in io.Reader, s *settings, emit func(*chunk)) error {
	size := linesPerChunk
	if s.batch > 1 {
		size = s.batch
	}
	reader := bufio.NewReaderSize(in, 1<<20)
	c := &chunk{done: make(chan struct{})}
	flush := func() {
		if len(c.ends) > 0 {
			emit(c)
			c = &chunk{done: make(chan struct{}), text: make([]byte, 0, len(c.text))}
		}
	}
	defer flush()
	for ctx.Err() == nil {
		if s.batch <= 1 && !lineWaits(reader) {
			flush()
		}
		start := len(c.text)
		var err error
		for {
			var part []byte
			part, err = reader.ReadSlice('\n')
			c.text = append(c.text, part...)
			if len(c.text)-start > maxLineBytes {
				return fmt.Errorf("a line is longer than %d bytes", maxLineBytes)
			}
			if !errors.Is(err, bufio.ErrBufferFull) {
				break
			}
		}
		if err != nil && err != io.EOF {
			return err
		}
		if len(c.text) > start {
			if c.text[len(c.text)-1] == '\n' {
				c.text = c.text[:len(c.text)-1]
			}
			c.ends = append(c.ends, len(c.text))
		}
		if err == io.EOF {
			return nil
		}
		if len(c.ends) == size {
			flush()
		}
	}
	return nil
}

// lineWaits says whether a whole line is in the buffer.
func lineWaits(r *bufio.Reader) bool {
	waiting, _ := r.Peek(r.Buffered())
	return bytes.IndexByte(waiting, '\n') >= 0
}

// worker answers chunks; it keeps what can be used again.
type worker struct {
	*settings
	request jsonlines.Request
	verdict anomaly.Verdict
	batches batcher
}

// answer appends the answers of a chunk.
func (w *worker) answer(ctx context.Context, c *chunk, to []byte) []byte {
	if w.batch > 1 {
		return w.batches.answer(ctx, w.settings, c, to)
	}
	start := 0
	for _, end := range c.ends {
		to = w.answerLine(ctx, c.text[start:end], to)
		start = end
	}
	return to
}

// answerLine parses and scores one line.
func (w *worker) answerLine(ctx context.Context, line, to []byte) []byte {
	if refusal := w.request.Parse(line); refusal != nil {
		return jsonlines.AppendError(to, w.request.ID, refusal)
	}
	detector, err := anomaly.ParseDetector(w.request.Detector)
	if err == nil {
		err = w.scorer.Score(ctx, anomaly.Request{Detector: detector, Samples: w.request.Samples, Explain: anomaly.ExplainAlways}, &w.verdict)
	}
	if err != nil {
		return jsonlines.AppendError(to, w.request.ID, anomaly.AsError(err))
	}
	return jsonlines.AppendVerdict(to, w.request.ID, detector, &w.verdict)
}
