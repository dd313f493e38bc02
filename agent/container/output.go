package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// maxRead bounds one read, whatever the host asks for: an answer beyond
// ttRPC's 4 MiB would cost the connection.
const maxRead = 1 << 20

// consoleRetry is how long a read waits before it looks again at a terminal
// that nobody has open.
const consoleRetry = 50 * time.Millisecond

// output is the reading end of what a process prints. Nothing is copied and
// nothing is buffered: a reader that stops reading stops the process, as a
// pipe does.
//
// A pipe ends when its last writer is gone. That may be long after the process
// itself, because a grandchild can hold the pipe open; so drainWindow after
// the exit a reader gets what is in the pipe by then, and the end. A terminal
// that nobody has open can be opened again by name, so as long as the process
// lives its EIO is not the end.
type output struct {
	file *os.File
	turn chan struct{} // holds one token: one reader at a time
	most int           // one read never gets more, so its buffer is no larger

	// What may still be read once the drain window is over: as much as fits
	// into the pipe. A grandchild that prints for ever could otherwise keep
	// the container from ever stopping. Guarded by turn, as is ended.
	rest  int
	ended bool

	mu        sync.Mutex // guards the deadline of file and the fields below
	over      time.Time  // end of the drain window; zero while the process lives
	cancelled bool       // the deadline was set by a reader's ctx
}

func newOutput(file *os.File, capacity int) *output {
	o := &output{file: file, most: min(capacity, maxRead), rest: capacity, turn: make(chan struct{}, 1)}
	o.turn <- struct{}{}
	return o
}

// read returns at least one byte, at most max, or io.EOF. When ctx ends first
// it has taken no byte.
func (o *output) read(ctx context.Context, max int) ([]byte, error) {
	if max <= 0 {
		return nil, fmt.Errorf("read length %d: %w", max, errdefs.ErrInvalidArgument)
	}
	select {
	case <-o.turn:
		defer func() { o.turn <- struct{}{} }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	stop := context.AfterFunc(ctx, o.cancel)
	defer stop()
	buf := make([]byte, min(max, o.most))
	for !o.ended {
		n, err := o.try(ctx, buf)
		if n > 0 || err != nil {
			return buf[:n], err
		}
	}
	return nil, io.EOF
}

// try waits for bytes once. Nothing and no error means: look at ended, then
// try again.
func (o *output) try(ctx context.Context, buf []byte) (int, error) {
	over, err := o.arm(ctx)
	if err != nil {
		return 0, err
	}
	if over {
		return o.leftover(buf), nil
	}
	n, err := o.file.Read(buf)
	switch {
	case n > 0:
		return n, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return 0, nil
	case errors.Is(err, unix.EIO) && !o.exited():
		return 0, o.idle(ctx)
	default:
		o.end()
		return 0, nil
	}
}

// arm prepares the deadline for one read. A cancellation from here on moves
// the deadline into the past; one that came earlier is found here. The late
// cancellation of an earlier reader wakes this one for nothing, and it arms
// again.
func (o *output) arm(ctx context.Context) (over bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if !o.over.IsZero() && time.Now().After(o.over) {
		return true, nil
	}
	o.cancelled = false
	o.file.SetReadDeadline(o.over)
	return false, nil
}

func (o *output) cancel() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.cancelled = true
	o.file.SetReadDeadline(time.Unix(1, 0))
}

// exit starts the drain window. A reader that its ctx has woken keeps its
// deadline, or it would wait out the window for nothing.
func (o *output) exit(window time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.over = time.Now().Add(window)
	if !o.cancelled {
		o.file.SetReadDeadline(o.over)
	}
}

func (o *output) exited() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !o.over.IsZero()
}

// leftover takes what is there without waiting.
func (o *output) leftover(buf []byte) int {
	n, err := readNow(o.file, buf[:min(len(buf), o.rest)])
	o.rest -= n
	if err != nil || n == 0 {
		o.end()
	}
	return n
}

// idle waits for somebody to open the terminal again. The exit of the process
// is noticed at the next look.
func (o *output) idle(ctx context.Context) error {
	retry := time.NewTimer(consoleRetry)
	defer retry.Stop()
	select {
	case <-retry.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (o *output) end() {
	o.ended = true
	o.close()
}

// close frees the descriptor. A pending read ends with io.EOF.
func (o *output) close() { o.file.Close() }

// readNow reads from a non-blocking file without minding its deadline.
func readNow(f *os.File, buf []byte) (n int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	controlled := raw.Control(func(fd uintptr) {
		for {
			if n, err = unix.Read(int(fd), buf); err != unix.EINTR {
				break
			}
		}
	})
	return max(n, 0), errors.Join(controlled, err)
}
