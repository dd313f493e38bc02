package container

import (
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// consoleCapacity is more than the kernel keeps for a terminal
// (drivers/tty/tty_buffer.c, TTYB_DEFAULT_MEM_LIMIT).
const consoleCapacity = 128 << 10

// pipes are both ends of the three standard streams. Ours are non-blocking, so
// that deadlines end a read; the process's are not, because few programs
// expect that.
type pipes struct {
	ours, theirs [3]*os.File
}

// openPipes makes them. size, if not zero, is what the two output pipes can
// hold.
func openPipes(size int) (*pipes, error) {
	p := &pipes{}
	for n := range p.ours {
		if err := p.open(n); err != nil {
			p.close()
			return nil, fmt.Errorf("make pipe: %w", err)
		}
		if n == 0 || size == 0 {
			continue
		}
		if _, err := unix.FcntlInt(p.theirs[n].Fd(), unix.F_SETPIPE_SZ, size); err != nil {
			p.close()
			return nil, fmt.Errorf("set pipe size %d: %w: %w", size, errdefs.ErrInvalidArgument, err)
		}
	}
	return p, nil
}

func (p *pipes) open(n int) error {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	ours, theirs := fds[0], fds[1]
	if n == 0 {
		ours, theirs = theirs, ours
	}
	err := unix.SetNonblock(ours, true)
	p.ours[n] = os.NewFile(uintptr(ours), "stdio")
	p.theirs[n] = os.NewFile(uintptr(theirs), "stdio")
	return err
}

func (p *pipes) stdio() Stdio {
	return Stdio{Stdin: p.theirs[0], Stdout: p.theirs[1], Stderr: p.theirs[2]}
}

// handOver closes the process's ends, which the process now holds itself. An
// end left open here would keep the streams from ever ending.
func (p *pipes) handOver() {
	for _, f := range p.theirs {
		f.Close()
	}
}

func (p *pipes) close() {
	for _, f := range append(p.ours[:], p.theirs[:]...) {
		if f != nil {
			f.Close()
		}
	}
}

// capacity is how much a pipe can hold.
func capacity(f *os.File) int {
	const usual = 64 << 10
	raw, err := f.SyscallConn()
	if err != nil {
		return usual
	}
	size := usual
	err = errors.Join(err, raw.Control(func(fd uintptr) {
		if n, failed := unix.FcntlInt(fd, unix.F_GETPIPE_SZ, 0); failed == nil {
			size = n
		}
	}))
	if err != nil {
		return usual
	}
	return size
}
