package console

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	os.Exit(m.Run())
}

// serve opens the console on a socket and returns how to reach it.
func serve(t *testing.T, c Console) (dial func() net.Conn) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil { // returns only after the last session
			t.Error(err)
		}
	})
	return func() net.Conn {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		return conn
	}
}

// until reads lines until one begins with the word, and returns what follows.
func until(t *testing.T, r *bufio.Reader, word string) string {
	t.Helper()
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("no line with %s: %v", word, err)
		}
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), word); ok {
			return strings.TrimSpace(rest)
		}
	}
}

func TestSession(t *testing.T) {
	dial := serve(t, Console{Shells: []string{"/no/such/shell", "/bin/sh"}})
	conn := dial()
	defer conn.Close()
	fmt.Fprintln(conn, "PS1=; echo; echo is:$((6*7)) $(tty) $PATH; exit 3")
	got := until(t, bufio.NewReader(conn), "is:")
	if !strings.HasPrefix(got, "42 /dev/pts/") || !strings.HasSuffix(got, "/usr/sbin") {
		t.Errorf("got %q", got)
	}
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Errorf("the connection stays after the shell: %v", err)
	}
}

// Hanging up ends the shell, and also what runs in its foreground.
func TestHangUp(t *testing.T) {
	dial := serve(t, Console{Shells: []string{"/bin/sh"}})
	conn := dial()
	fmt.Fprintln(conn, "PS1=; set -m; echo; sh -c 'echo pids:$PPID $$; exec sleep 1000'")
	var shell, sleeper int
	if _, err := fmt.Sscan(until(t, bufio.NewReader(conn), "pids:"), &shell, &sleeper); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	for _, pid := range []int{shell, sleeper} {
		gone := func() bool {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			return err != nil || strings.Contains(string(stat), ") Z ")
		}
		for end := time.Now().Add(10 * time.Second); !gone(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("process %d is still there", pid)
			}
		}
	}
}

func TestSessionsAreBounded(t *testing.T) {
	dial := serve(t, Console{Shells: []string{"/bin/sh"}})
	for range maxSessions {
		conn := dial()
		defer conn.Close()
		fmt.Fprintln(conn, "PS1=; echo; echo in:")
		until(t, bufio.NewReader(conn), "in:")
	}
	text, err := io.ReadAll(dial())
	if err != nil || !strings.Contains(string(text), "sessions are open") {
		t.Errorf("one too many got %q, %v", text, err)
	}
}

func TestNoShell(t *testing.T) {
	text, err := io.ReadAll(serve(t, Console{Shells: []string{"/no/such/shell"}})())
	if err != nil || !strings.Contains(string(text), "no shell, tried [/no/such/shell]") {
		t.Errorf("got %q, %v", text, err)
	}
}

// The line is the far end of a terminal. A shell that ends is followed by another.
func TestSerial(t *testing.T) {
	master, slave, err := openTerminal()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	defer slave.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Console{Shells: []string{"/bin/sh"}}.Serial(ctx, slave.Name()) }()
	lines := bufio.NewReader(master)
	for range 2 {
		fmt.Fprintln(master, "PS1=; echo; echo is:$((6*7)); exit 3")
		if got := until(t, lines, "is:"); got != "42" {
			t.Errorf("got %q", got)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := (Console{Shells: []string{"/bin/sh"}}).Serial(t.Context(), "/no/such/line"); err == nil {
		t.Error("no error without a line")
	}
	if err := (Console{}).Serial(t.Context(), slave.Name()); err != nil {
		t.Errorf("no shell ends the guest: %v", err)
	}
}
