package container_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/agent/container"
)

// numbers is what "seq 1 N" prints.
func numbers(n int) []byte {
	var b bytes.Buffer
	for i := 1; i <= n; i++ {
		fmt.Fprintln(&b, i)
	}
	return b.Bytes()
}

func TestOutputIsExact(t *testing.T) {
	for _, tc := range []struct {
		name  string
		chunk int
		size  int
		slow  bool
	}{
		{"large reads", 1 << 20, 0, false},
		{"odd reads", 4093, 0, false},
		{"wide pipe", 32 << 10, 1 << 20, false},
		{"slow reader", 32 << 10, 0, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			const count = 200_000 // 1.3 MB
			c, _ := plain(t, shell("exec seq 1 200000"), container.Options{PipeSize: tc.size})
			p := start(t, c)
			read := p.ReadStdout
			if tc.slow {
				read = func(ctx context.Context, max int) ([]byte, error) {
					time.Sleep(time.Millisecond) // plays a slow host
					return p.ReadStdout(ctx, max)
				}
			}
			if got := readAll(t, read, tc.chunk); !bytes.Equal(got, numbers(count)) {
				t.Errorf("got %d bytes, want %d, or others", len(got), len(numbers(count)))
			}
			wait(t, p, 0)
		})
	}
}

// What is in the pipe is there for a reader that comes long after the exit.
func TestOutputAfterExit(t *testing.T) {
	c, _ := plain(t, shell("exec seq 1 10000"), container.Options{DrainWindow: time.Nanosecond})
	p := start(t, c)
	wait(t, p, 0)
	if got := readAll(t, p.ReadStdout, 999); !bytes.Equal(got, numbers(10000)) {
		t.Errorf("got %d bytes, want %d, or others", len(got), len(numbers(10000)))
	}
	if _, err := p.ReadStdout(patient(t), 10); !errors.Is(err, io.EOF) {
		t.Errorf("read after the end = %v, want EOF again", err)
	}
}

func TestCancelledReadLosesNothing(t *testing.T) {
	c, _ := plain(t, shell("exec cat"), container.Options{})
	p := start(t, c)
	for range 20 {
		ctx, cancel := context.WithCancel(context.Background())
		failed := make(chan error, 1)
		go func() {
			b, err := p.ReadStdout(ctx, 100)
			if len(b) > 0 {
				err = errors.New("took " + string(b))
			}
			failed <- err
		}()
		cancel()
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Fatalf("cancelled read = %v", err)
		}
		if _, err := p.WriteStdin(patient(t), []byte("x")); err != nil {
			t.Fatal(err)
		}
		if b, err := p.ReadStdout(patient(t), 100); string(b) != "x" || err != nil {
			t.Fatalf("next read = %q, %v, want x", b, err)
		}
	}
}

// A reader that waits for its turn obeys its own ctx.
func TestReadersTakeTurns(t *testing.T) {
	c, _ := plain(t, shell("exec cat"), container.Options{})
	p := start(t, c)
	first := make(chan []byte, 1)
	ctx := patient(t)
	go func() {
		b, _ := p.ReadStdout(ctx, 100)
		first <- b
	}()
	if _, err := p.ReadStdout(brief(t), 100); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("second reader = %v, want its deadline", err)
	}
	p.WriteStdin(ctx, []byte("y"))
	if b := <-first; string(b) != "y" && len(b) != 0 {
		t.Errorf("first reader got %q", b)
	}
	if _, err := p.ReadStdout(ctx, 0); !errdefs.IsInvalidArgument(err) {
		t.Errorf("read of 0 bytes = %v, want invalid argument", err)
	}
}

func TestGrandchildHoldsThePipe(t *testing.T) {
	for _, tc := range []struct{ name, script string }{
		{"silent", "sleep 100 & echo last words"},
		{"printing for ever", "yes noise & echo last words"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, _ := plain(t, shell(tc.script), container.Options{DrainWindow: 50 * time.Millisecond})
			p := start(t, c)
			began := time.Now()
			all := readAll(t, p.ReadStdout, 32<<10)
			if !bytes.Contains(all, []byte("last words\n")) {
				t.Errorf("the last words are not among %d bytes", len(all))
			}
			if took := time.Since(began); took > patience/2 {
				t.Errorf("the end came after %v", took)
			}
			wait(t, p, 0)
		})
	}
}

// A pending read learns of an exit that happens under it.
func TestExitEndsPendingRead(t *testing.T) {
	c, _ := plain(t, shell("sleep 100 & read line; exit 0"), container.Options{DrainWindow: time.Millisecond})
	p := start(t, c)
	got := make(chan error, 1)
	ctx := patient(t)
	go func() {
		_, err := p.ReadStdout(ctx, 100)
		got <- err
	}()
	p.CloseStdin()
	if err := <-got; !errors.Is(err, io.EOF) {
		t.Errorf("pending read = %v, want EOF", err)
	}
}

func TestStalledWriter(t *testing.T) {
	sameFiles(t)
	c, _ := plain(t, shell("exec sleep 100"), container.Options{})
	p := start(t, c)
	much := make([]byte, 1<<20)
	n, err := p.WriteStdin(brief(t), much)
	if !errors.Is(err, context.DeadlineExceeded) || n == 0 || n == len(much) {
		t.Errorf("WriteStdin = %d, %v, want a part and the deadline", n, err)
	}
	ctx := patient(t)
	stalled, queued := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := p.WriteStdin(ctx, much)
		stalled <- err
	}()
	go func() {
		_, err := p.WriteStdin(ctx, much)
		queued <- err
	}()
	if err := c.Signal(ctx, "", unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	wait(t, p, 137)
	for _, end := range []chan error{stalled, queued} {
		if err := <-end; !errdefs.IsNotFound(err) {
			t.Errorf("stalled WriteStdin = %v, want not found", err)
		}
	}
}

func TestCloseStdinEndsStalledWriter(t *testing.T) {
	c, _ := plain(t, shell("exec sleep 100"), container.Options{})
	p := start(t, c)
	if _, err := p.WriteStdin(brief(t), make([]byte, 1<<20)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	ctx := patient(t)
	stalled := make(chan error, 1)
	go func() {
		_, err := p.WriteStdin(ctx, []byte("more"))
		stalled <- err
	}()
	if err := p.CloseStdin(); err != nil {
		t.Fatal(err)
	}
	if err := <-stalled; !errors.Is(err, unix.EPIPE) {
		t.Errorf("WriteStdin = %v, want EPIPE", err)
	}
}

func TestTerminal(t *testing.T) {
	sameFiles(t)
	sh := shell(`tty >/dev/null && stty size; cat; echo "after eof"; stty size`)
	sh.Terminal = true
	c, _ := plain(t, sh, container.Options{})
	p := process(t, c, "")
	if err := p.Resize(33, 101); err != nil {
		t.Fatal(err)
	}
	start(t, c)
	until(t, p.ReadStdout, "33 101")
	if _, err := p.WriteStdin(patient(t), []byte("typed\n")); err != nil {
		t.Fatal(err)
	}
	until(t, p.ReadStdout, "typed\r\ntyped") // the echo, and cat
	if _, err := p.ReadStderr(patient(t), 10); !errors.Is(err, io.EOF) {
		t.Errorf("stderr of a terminal = %v, want EOF", err)
	}
	if err := p.Resize(50, 60); err != nil {
		t.Fatal(err)
	}
	if err := p.CloseStdin(); err != nil {
		t.Fatal(err)
	}
	if got := string(readAll(t, p.ReadStdout, 100)); !strings.Contains(got, "after eof") || !strings.Contains(got, "50 60") {
		t.Errorf("after the end of input: %q", got)
	}
	wait(t, p, 0)
	if err := p.CloseStdin(); err != nil {
		t.Errorf("CloseStdin after the end: %v", err)
	}
	if _, err := p.WriteStdin(patient(t), []byte("x")); !errdefs.IsNotFound(err) {
		t.Errorf("WriteStdin after the end = %v, want not found", err)
	}
	if err := p.Resize(1, 1); !errdefs.IsNotFound(err) {
		t.Errorf("Resize after the end = %v, want not found", err)
	}
}

// Until its exit code was asked for, a process that has ended takes a size: the
// shim may just send one. Its input is lost, and the caller is told.
func TestEndedButNotWaitedFor(t *testing.T) {
	for _, terminal := range []bool{true, false} {
		sh := shell("exit 3")
		sh.Terminal = terminal
		c, _ := plain(t, sh, container.Options{})
		p := start(t, c)
		for ctx := patient(t); c.State() != container.StateStopped; runtime.Gosched() {
			if ctx.Err() != nil {
				t.Fatal("it does not end")
			}
		}
		if _, err := p.WriteStdin(patient(t), []byte("x")); !errdefs.IsNotFound(err) {
			t.Errorf("terminal %t: WriteStdin = %v, want not found", terminal, err)
		}
		if err := p.Resize(1, 1); terminal && err != nil {
			t.Errorf("Resize = %v", err)
		}
		wait(t, p, 3)
	}
}

// A process may close its input and live on.
func TestInputThatNobodyReads(t *testing.T) {
	c, _ := plain(t, shell("exec <&-; echo closed; exec sleep 100"), container.Options{})
	p := start(t, c)
	until(t, p.ReadStdout, "closed")
	if _, err := p.WriteStdin(patient(t), []byte("x")); !errors.Is(err, unix.EPIPE) || errdefs.IsNotFound(err) {
		t.Errorf("WriteStdin = %v, want EPIPE", err)
	}
}

// A program may close its terminal and open it again, as init systems do; the
// stream goes on.
func TestTerminalThatNobodyHasOpen(t *testing.T) {
	sh := shell(`t=$(tty); exec </dev/null >/dev/null 2>&1; sleep 0.2; echo again >$t; sleep 0.2; echo and again >$t`)
	sh.Terminal = true
	c, _ := plain(t, sh, container.Options{})
	p := start(t, c)
	if got := string(readAll(t, p.ReadStdout, 100)); got != "again\r\nand again\r\n" {
		t.Errorf("stdout = %q", got)
	}
	wait(t, p, 0)
}

func TestResizeWithoutTerminal(t *testing.T) {
	c, _ := plain(t, shell("true"), container.Options{})
	err := process(t, c, "").Resize(1, 1)
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "no tty") {
		t.Errorf("Resize = %v, want unavailable: no tty", err)
	}
}
