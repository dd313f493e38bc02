package container

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"
)

// copySize is how much one copy moves.
const copySize = 64 << 10

// Attach copies the streams of the process from and to connections, which belong
// to it from here on; nil leaves a stream alone. It must be called before anybody
// waits for the process. From then on:
//
//   - The end of stdin's connection closes the input, but not a terminal, which
//     others may use.
//   - Each output's connection ends when the output does. Wait returns after that,
//     or when the peer stopped reading for Options.StallWindow after the exit.
//   - Output for a peer that hung up is read and dropped, so that the process does
//     not block.
func (p *Process) Attach(stdin, stdout, stderr net.Conn) {
	if stdin != nil {
		go p.copyIn(stdin)
	}
	var outputs sync.WaitGroup
	if stdout != nil {
		outputs.Go(func() { p.copyOut(stdout, p.ReadStdout) })
	}
	if stderr != nil {
		outputs.Go(func() { p.copyOut(stderr, p.ReadStderr) })
	}
	copied := make(chan struct{})
	p.mu.Lock()
	p.copied = copied
	p.mu.Unlock()
	go func() {
		outputs.Wait()
		close(copied)
	}()
}

func (p *Process) copyIn(from net.Conn) {
	defer from.Close()
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-p.done:
			from.Close() // the peer may never write again
		case <-ended:
		}
	}()
	buf := make([]byte, copySize)
	for {
		n, err := from.Read(buf)
		if _, failed := p.WriteStdin(context.Background(), buf[:n]); failed != nil {
			return // nobody reads it any more
		}
		if err == nil {
			continue
		}
		if !p.terminal && errors.Is(err, io.EOF) {
			_ = p.CloseStdin() // it fails if the process is gone
		}
		return
	}
}

func (p *Process) copyOut(to net.Conn, read func(context.Context, int) ([]byte, error)) {
	defer to.Close()
	w := &patience{Conn: to, exited: p.done, limit: p.stall}
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-p.done:
			w.lose()
		case <-ended:
		}
	}()
	var lost error
	for {
		data, err := read(context.Background(), copySize)
		if err != nil {
			return // the end
		}
		if lost != nil {
			continue
		}
		if _, lost = w.Write(data); lost != nil {
			slog.Warn("output is dropped, its reader is gone", "pid", p.Pid(), "error", lost)
			to.Close()
		}
	}
}

// patience writes without a deadline until the process has exited, and from then
// on with one for each write.
type patience struct {
	net.Conn
	exited <-chan struct{}
	limit  time.Duration
}

func (w *patience) Write(b []byte) (int, error) {
	select {
	case <-w.exited:
		w.lose()
	default:
	}
	return w.Conn.Write(b)
}

// lose sets the deadline, also of a write under way.
func (w *patience) lose() { _ = w.SetWriteDeadline(time.Now().Add(w.limit)) }
