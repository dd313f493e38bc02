package main

import (
	"context"
	"fmt"
	"os"
	"reflect"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

// openPTY returns both ends of a new terminal.
func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

// TestTerminal runs a container on a real terminal: keys go through unchanged,
// the size is passed on at once and when it changes, and the terminal is as
// before at the end.
func TestTerminal(t *testing.T) {
	f, addr := serve(t)
	master, slave := openPTY(t)
	setSize := func(rows uint16) {
		if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: 100}); err != nil {
			t.Fatal(err)
		}
	}
	setSize(41)
	before, err := term.GetState(int(slave.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	var errs buffer
	code := make(chan int)
	args := []string{"--address", addr, "run", "-it", "--name", "web", "img", "--", "cat"}
	go func() { code <- execute(t.Context(), args, stdio{slave, slave, &errs}) }()

	waitRows(t, f, 41)
	if now, _ := term.GetState(int(slave.Fd())); reflect.DeepEqual(now, before) {
		t.Error("the terminal is not raw")
	}
	// ^C is a key like any other here.
	if _, err := master.WriteString("a\x03b"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 3)
	for n := 0; n < len(got); {
		m, err := master.Read(got[n:])
		if err != nil {
			t.Fatal(err)
		}
		n += m
	}
	if string(got) != "a\x03b" {
		t.Errorf("got %q back", got)
	}
	setSize(42)
	if err := unix.Kill(unix.Getpid(), unix.SIGWINCH); err != nil {
		t.Fatal(err)
	}
	waitRows(t, f, 42)

	if _, err := f.closeStdin(context.Background(), &agentpb.CloseStdinRequest{ContainerId: "web"}); err != nil {
		t.Fatal(err)
	}
	if c := <-code; c != 0 {
		t.Errorf("code %d, err %q", c, errs.String())
	}
	if after, _ := term.GetState(int(slave.Fd())); !reflect.DeepEqual(after, before) {
		t.Error("the terminal was not restored")
	}
}

func waitRows(t *testing.T, f *fakeAgent, want uint32) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if p, err := f.proc("web", ""); err == nil {
			f.mu.Lock()
			rows := p.rows
			f.mu.Unlock()
			if rows == want {
				return
			}
		}
	}
	t.Fatalf("the size %d did not arrive", want)
}
