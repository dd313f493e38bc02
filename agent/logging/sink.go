package logging

import (
	"context"
	"io"
	"net"
	"strconv"
	"sync"
	"time"
)

// Bounds of what waits to be written. A host that does not read the log port,
// or a slow console, costs old lines and nothing else.
const (
	maxLines = 4096
	maxBytes = 1 << 20
)

// flushTime is how long the log port may take for what is left at the end.
const flushTime = 500 * time.Millisecond

// item is a line, or the mark of somebody who waits for the lines before it.
type item struct {
	line   []byte
	passed chan struct{}
}

// Sink takes lines without ever waiting and writes them from its Run.
type Sink struct {
	out      io.Writer
	listener net.Listener  // nil: write to out
	ready    chan struct{} // one token when queue may hold something

	mu      sync.Mutex // guards what follows; never held while writing
	queue   []item
	size    int    // bytes in queue
	dropped uint64 // lines, ever
	told    uint64 // dropped lines that the log already mentions
}

func newSink(out io.Writer, l net.Listener) *Sink {
	return &Sink{out: out, listener: l, ready: make(chan struct{}, 1)}
}

// Dropped is the number of lines that were lost since the start.
func (s *Sink) Dropped() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dropped
}

// Flush waits until the lines that were logged before it are written, or ctx
// ends. It needs Run.
func (s *Sink) Flush(ctx context.Context) error {
	mark := make(chan struct{})
	s.push(item{passed: mark})
	select {
	case <-mark:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Run writes lines until ctx ends, and then those that are left. Call it once.
// It returns an error when the log port fails for good.
func (s *Sink) Run(ctx context.Context) error {
	if s.listener == nil {
		s.drain(ctx, s.out)
		return nil
	}
	defer context.AfterFunc(ctx, func() { s.listener.Close() })()
	defer s.listener.Close()
	for ctx.Err() == nil {
		conn, err := s.listener.Accept()
		if ctx.Err() != nil && err != nil {
			return nil
		}
		if err != nil {
			return err
		}
		s.serve(ctx, conn)
	}
	return nil
}

// serve writes to one reader of the log port. The next one gets its turn when
// this one is gone.
func (s *Sink) serve(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetWriteDeadline(time.Now().Add(flushTime)) })()
	s.drain(ctx, conn)
}

// drain writes lines to w until ctx ends and nothing is left, or w fails.
func (s *Sink) drain(ctx context.Context, w io.Writer) {
	for {
		it, ok := s.pop()
		if !ok {
			select {
			case <-s.ready:
				continue
			case <-ctx.Done():
			}
			if it, ok = s.pop(); !ok {
				return
			}
		}
		if it.passed != nil {
			close(it.passed)
			continue
		}
		if _, err := w.Write(it.line); err != nil && s.listener != nil {
			s.unpop(it)
			return
		}
	}
}

// put queues one line.
func (s *Sink) put(line []byte) { s.push(item{line: line}) }

func (s *Sink) push(it item) {
	s.mu.Lock()
	s.queue = append(s.queue, it)
	s.size += len(it.line)
	for len(s.queue) > maxLines || s.size > maxBytes && len(s.queue) > 1 {
		s.dropLocked()
	}
	s.mu.Unlock()
	s.wake()
}

// dropLocked forgets the oldest item.
func (s *Sink) dropLocked() {
	old := s.queue[0]
	s.queue = s.queue[1:]
	s.size -= len(old.line)
	if old.passed != nil {
		close(old.passed)
		return
	}
	s.dropped++
}

func (s *Sink) wake() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// pop takes the oldest item, or a line that says how many were lost since the
// last such line.
func (s *Sink) pop() (item, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if lost := s.dropped - s.told; lost > 0 {
		s.told = s.dropped
		return item{line: lostLine(lost)}, true
	}
	if len(s.queue) == 0 {
		return item{}, false
	}
	it := s.queue[0]
	s.queue = s.queue[1:]
	s.size -= len(it.line)
	return it, true
}

// unpop puts back a line whose reader went away. The next reader gets it whole.
func (s *Sink) unpop(it item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = append([]item{it}, s.queue...)
	s.size += len(it.line)
}

func lostLine(n uint64) []byte {
	return encode([]field{
		{"msg", "log lines were lost"},
		{"level", "WARN"},
		{"ts", time.Now().UTC().Format(time.RFC3339Nano)},
		{"name", "kata-agent"},
		{"source", "agent"},
		{"subsystem", "logging"},
		{"count", strconv.FormatUint(n, 10)},
	})
}
