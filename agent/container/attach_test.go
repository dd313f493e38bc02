package container_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/agent/container"
)

// connPair are both ends of a stream socket, as the host's and ours.
func connPair(t *testing.T) (host, ours *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	ends := [2]*net.UnixConn{}
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = c.(*net.UnixConn)
		t.Cleanup(func() { c.Close() })
	}
	return ends[0], ends[1]
}

// all reads to the end, which must come.
func all(t *testing.T, c net.Conn) string {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	b, err := io.ReadAll(c)
	if err != nil {
		t.Errorf("after %d bytes: %v", len(b), err)
	}
	return string(b)
}

func TestAttach(t *testing.T) {
	sameFiles(t)
	c, _ := plain(t, shell("cat; echo err >&2; exit 5"), container.Options{})
	p := process(t, c, "")
	in, ourIn := connPair(t)
	out, ourOut := connPair(t)
	errs, ourErrs := connPair(t)
	p.Attach(ourIn, ourOut, ourErrs)
	start(t, c)
	if _, err := in.Write([]byte("typed")); err != nil {
		t.Fatal(err)
	}
	if err := in.CloseWrite(); err != nil { // half a close is the end of input
		t.Fatal(err)
	}
	if got := all(t, out); got != "typed" {
		t.Errorf("stdout %q", got)
	}
	if got := all(t, errs); got != "err\n" {
		t.Errorf("stderr %q", got)
	}
	wait(t, p, 5)
	if got := all(t, in); got != "" {
		t.Errorf("stdin's connection carried %q back", got)
	}
}

// The exit code comes after all output was handed over.
func TestAttachedOutputIsExact(t *testing.T) {
	sameFiles(t)
	c, _ := plain(t, shell("exec seq 1 200000"), container.Options{})
	p := process(t, c, "")
	out, ourOut := connPair(t)
	p.Attach(nil, ourOut, nil)
	got := make(chan string, 1)
	go func() { got <- all(t, out) }()
	start(t, c)
	wait(t, p, 0)
	if text := <-got; text != string(numbers(200000)) {
		t.Errorf("%d bytes, or others", len(text))
	}
}

// While the host has not taken all, the exit code is not given out.
func TestExitWaitsForAttachedOutput(t *testing.T) {
	c, _ := plain(t, shell("exec seq 1 100000"), container.Options{PipeSize: 1 << 20, DrainWindow: time.Minute, StallWindow: time.Minute})
	p := process(t, c, "")
	out, ourOut := connPair(t)
	if err := ourOut.SetWriteBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	p.Attach(nil, ourOut, nil)
	start(t, c) // the pipe holds all that it prints, the connection does not
	for ctx := patient(t); c.State() != container.StateStopped; runtime.Gosched() {
		if ctx.Err() != nil {
			t.Fatal("the process does not end")
		}
	}
	if _, err := p.Wait(brief(t)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait = %v before the output was taken", err)
	}
	all(t, out)
	wait(t, p, 0)
}

// The end of the input connection leaves a terminal alone: others may type.
func TestAttachTerminal(t *testing.T) {
	sameFiles(t)
	sh := shell("read a; read b; echo got $a $b; sleep 100")
	sh.Terminal = true
	c, _ := plain(t, sh, container.Options{})
	p := process(t, c, "")
	in, ourIn := connPair(t)
	out, ourOut := connPair(t)
	p.Attach(ourIn, ourOut, nil)
	start(t, c)
	if _, err := in.Write([]byte("one\n")); err != nil {
		t.Fatal(err)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	var seen bytes.Buffer
	buf := make([]byte, 100)
	out.SetReadDeadline(time.Now().Add(patience))
	for typed := false; !bytes.Contains(seen.Bytes(), []byte("got one two")); {
		n, err := out.Read(buf)
		if err != nil {
			t.Fatalf("after %q: %v", seen.String(), err)
		}
		seen.Write(buf[:n])
		if !typed && bytes.Contains(seen.Bytes(), []byte("one")) {
			typed = true
			if _, err := p.WriteStdin(patient(t), []byte("two\n")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := c.Signal(patient(t), "", unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	wait(t, p, 137)
	all(t, out)
}

// A peer that hangs up costs the process nothing: its output is dropped.
func TestAttachedPeerHangsUp(t *testing.T) {
	sameFiles(t)
	c, _ := plain(t, shell("seq 1 100000; exit 6"), container.Options{})
	p := process(t, c, "")
	out, ourOut := connPair(t)
	out.Close()
	p.Attach(nil, ourOut, nil)
	start(t, c)
	wait(t, p, 6)
}

// A peer that reads nothing delays neither a kill nor, for long, the exit code.
func TestAttachedPeerStalls(t *testing.T) {
	sameFiles(t)
	c, _ := plain(t, shell("exec yes"), container.Options{StallWindow: 20 * time.Millisecond, DrainWindow: time.Millisecond})
	p := process(t, c, "")
	in, ourIn := connPair(t)
	out, ourOut := connPair(t)
	p.Attach(ourIn, ourOut, nil)
	start(t, c)
	out.SetReadDeadline(time.Now().Add(patience))
	if _, err := out.Read(make([]byte, 1)); err != nil { // it prints
		t.Fatal(err)
	}
	in.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := in.Write(make([]byte, 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the input was taken by nobody: %v", err)
	}
	if err := c.Signal(patient(t), "", unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	wait(t, p, 137)
}

// A container that is destroyed without having been started ends the streams.
func TestAttachToNeverStarted(t *testing.T) {
	sameFiles(t)
	c, _ := plain(t, shell("cat"), container.Options{})
	p := process(t, c, "")
	in, ourIn := connPair(t)
	out, ourOut := connPair(t)
	p.Attach(ourIn, ourOut, nil)
	if err := c.Destroy(patient(t)); err != nil {
		t.Fatal(err)
	}
	if got := all(t, out) + all(t, in); got != "" {
		t.Errorf("%q", got)
	}
}
