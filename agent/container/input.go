package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// input is the writing end of what a process reads: a pipe, or the master of
// its terminal. A full pipe blocks the writer and nobody else.
type input struct {
	file     *os.File
	terminal bool
	turn     chan struct{} // holds one token: one writer at a time

	mu     sync.Mutex // guards the deadline of file and the fields below
	exited bool
	closed bool
}

func newInput(file *os.File, terminal bool) *input {
	i := &input{file: file, terminal: terminal, turn: make(chan struct{}, 1)}
	i.turn <- struct{}{}
	return i
}

// write returns how much the process's end has taken when it fails.
func (i *input) write(ctx context.Context, data []byte) (int, error) {
	select {
	case <-i.turn:
		defer func() { i.turn <- struct{}{} }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	stop := context.AfterFunc(ctx, i.wake)
	defer stop()
	written := 0
	for written < len(data) {
		if err := i.arm(ctx); err != nil {
			return written, err
		}
		n, err := i.file.Write(data[written:])
		written += n
		if errors.Is(err, os.ErrClosed) {
			err = unix.EPIPE // CloseStdin, or the exit, came in between
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return written, fmt.Errorf("write stdin: %w", err)
		}
	}
	return written, nil
}

// arm prepares one write; see output.arm.
func (i *input) arm(ctx context.Context) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if i.exited || i.closed {
		return fmt.Errorf("write stdin: %w", unix.EPIPE)
	}
	i.file.SetWriteDeadline(time.Time{})
	return nil
}

// wake makes a blocked writer look around.
func (i *input) wake() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.file.SetWriteDeadline(time.Unix(1, 0))
}

// exit ends all writing: nobody is left whom the data is for.
func (i *input) exit() {
	i.mu.Lock()
	i.exited = true
	i.mu.Unlock()
	if i.terminal {
		i.wake() // the file stays, there is output to be read from it
	} else {
		i.file.Close()
	}
}

// close gives the process its end of file, at once: a writer that still waits
// gives up. A terminal must stay open, because closing the master hangs up the
// whole session; its reader gets the end-of-file character instead.
func (i *input) close() error {
	if i.terminal {
		return i.sendEOF()
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed || i.exited {
		return nil
	}
	i.closed = true
	return i.file.Close()
}

// sendEOF types the terminal's end-of-file character (mostly ^D) if the
// terminal is in the mode that understands it. A raw terminal would pass it on
// to the program as a key press. An input queue that is full loses it.
func (i *input) sendEOF() error {
	raw, err := i.file.SyscallConn()
	if err != nil {
		return nil // closed: the session is over
	}
	controlled := raw.Control(func(fd uintptr) {
		var settings *unix.Termios
		if settings, err = unix.IoctlGetTermios(int(fd), unix.TCGETS); err != nil {
			return
		}
		if settings.Lflag&unix.ICANON != 0 {
			_, err = unix.Write(int(fd), settings.Cc[unix.VEOF:unix.VEOF+1])
		}
	})
	if controlled != nil || errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EIO) {
		return nil
	}
	return err
}

func (i *input) resize(rows, cols uint16) error {
	raw, err := i.file.SyscallConn()
	if err != nil {
		return err
	}
	size := &unix.Winsize{Row: rows, Col: cols}
	controlled := raw.Control(func(fd uintptr) {
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, size)
	})
	return errors.Join(controlled, err)
}
