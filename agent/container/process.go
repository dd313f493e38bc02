package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Process is the init of a container or a program that Exec started in it.
// All methods may be called at any time from several goroutines, also after
// the process has ended.
type Process struct {
	proc     Proc
	terminal bool
	stall    time.Duration // see Options.StallWindow
	stdin    *input
	stdout   *output
	stderr   *output // nil with a terminal, which has one stream

	done   chan struct{} // closed after the exit; code is set before
	code   int
	gone   chan struct{} // closed by Destroy if the process never ran its program
	waited atomic.Bool   // somebody has been told the code
	seq    uint64        // order among execs; guarded by Container.mu

	mu     sync.Mutex    // guards copied
	copied chan struct{} // closed when attached outputs have ended; nil without any
}

// Pid is the process's number in the guest.
func (p *Process) Pid() int { return p.proc.Pid() }

// ReadStdout returns the next output of the process, at least one byte, at
// most max. It waits for output until ctx ends. Bytes belong to the first
// reader that gets them; a cancelled read takes none. io.EOF comes when nobody
// is left who could write, or when the drain window after the exit is over,
// because a grandchild may hold the pipe open for ever; it then comes always.
func (p *Process) ReadStdout(ctx context.Context, max int) ([]byte, error) {
	return p.stdout.read(ctx, max)
}

// ReadStderr is ReadStdout for the other stream. A terminal has none and
// reports io.EOF at once.
func (p *Process) ReadStderr(ctx context.Context, max int) ([]byte, error) {
	if p.stderr == nil {
		return nil, io.EOF
	}
	return p.stderr.read(ctx, max)
}

// WriteStdin writes all of data, waiting while the process does not read. When
// it fails it says how much went in. Kills and signals do not wait for it. When
// the process has ended it fails with ErrNotFound, which the host takes for the
// end; a process that closed its stdin and lives on gives EPIPE.
func (p *Process) WriteStdin(ctx context.Context, data []byte) (int, error) {
	n, err := p.stdin.write(ctx, data)
	if (errors.Is(err, unix.EPIPE) || errors.Is(err, unix.EIO)) && p.isEnding(ctx) {
		err = fmt.Errorf("write stdin: process has exited: %w", errdefs.ErrNotFound)
	}
	return n, err
}

// reapTime is how long after the end of its streams a process may show up as
// exited.
const reapTime = 100 * time.Millisecond

// isEnding reports whether the process has exited, or does so at once: its
// streams end before its exit code is known.
func (p *Process) isEnding(ctx context.Context) bool {
	late := time.NewTimer(reapTime)
	defer late.Stop()
	select {
	case <-p.done:
		return true
	case <-late.C:
	case <-ctx.Done():
	}
	return p.hasExited()
}

// CloseStdin lets the process read the end of its input, after what was
// written. It may be repeated. On a terminal it types the end-of-file
// character.
func (p *Process) CloseStdin() error {
	if err := p.stdin.close(); err != nil {
		return fmt.Errorf("close stdin: %w", err)
	}
	return nil
}

// Resize sets the size of the terminal. Without one it fails with
// ErrUnavailable and the words "no tty", which the host knows. As with Signal, a
// process that has just exited counts as reached, until somebody has been told
// its exit code; then it is ErrNotFound.
func (p *Process) Resize(rows, cols uint16) error {
	if !p.terminal {
		return fmt.Errorf("no tty: %w", errdefs.ErrUnavailable)
	}
	err := p.stdin.resize(rows, cols)
	if p.hasExited() {
		if p.waited.Load() {
			return fmt.Errorf("resize terminal: process has exited: %w", errdefs.ErrNotFound)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("resize terminal: %w", err)
	}
	return nil
}

// Wait returns the exit code: 0-255, or 128 plus the signal that killed the
// process. Any number of callers get it, however late. A created container
// that is destroyed without having been started answers ErrNotFound.
func (p *Process) Wait(ctx context.Context) (int, error) {
	select {
	case <-p.done:
	case <-p.gone:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	select {
	case <-p.gone: // the end that Destroy made of it is no exit
		return 0, fmt.Errorf("process was never started: %w", errdefs.ErrNotFound)
	default:
	}
	p.mu.Lock()
	copied := p.copied
	p.mu.Unlock()
	if copied != nil {
		select {
		case <-copied:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	p.waited.Store(true)
	return p.code, nil
}

// hasExited reports whether the exit code is known.
func (p *Process) hasExited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// await collects the exit code. One goroutine runs it per process, from the
// moment the process exists until it has ended.
func (p *Process) await(drain time.Duration) {
	code, err := p.proc.Wait()
	if err != nil {
		slog.Warn("exit code lost", "pid", p.proc.Pid(), "error", err)
		code = 255
	}
	p.code = code
	p.stdin.exit()
	p.stdout.exit(drain)
	if p.stderr != nil {
		p.stderr.exit(drain)
	}
	close(p.done)
}

// abandon closes gone. Container.mu guards it against a second time.
func (p *Process) abandon() {
	select {
	case <-p.gone:
	default:
		close(p.gone)
	}
}

// close frees the streams. What was not read is lost.
func (p *Process) close() {
	p.stdin.file.Close()
	p.stdout.close()
	if p.stderr != nil {
		p.stderr.close()
	}
}
