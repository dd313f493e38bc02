package logging

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/coffer-cc/coffer/evidence/secret"
)

// setup logs into a buffer until the test ends. lines flushes and returns what
// was written.
func setup(t *testing.T, level slog.Level) (lines func() []map[string]string) {
	t.Helper()
	old := slog.Default()
	var out bytes.Buffer
	s := Setup(Options{Level: level, Version: "1.2", Out: &out})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		stop()
		slog.SetDefault(old)
		log.SetOutput(os.Stderr)
	})
	return func() []map[string]string {
		stop()
		return parse(t, out.String())
	}
}

func parse(t *testing.T, text string) (out []map[string]string) {
	t.Helper()
	for line := range strings.Lines(text) {
		var fields map[string]string // fails for a value that is no text
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if n := strings.Count(line, `":"`); n < len(fields) {
			t.Errorf("a key stands twice: %s", line)
		}
		out = append(out, fields)
	}
	return out
}

func TestHookNoise(t *testing.T) {
	lines := setup(t, slog.LevelInfo)
	logrus.Warnf("cannot serialize hook of type %T, skipping", hook{})
	logrus.Warn("cannot remove cgroup")
	if got := lines(); len(got) != 1 || got[0]["msg"] != "cannot remove cgroup" {
		t.Errorf("logged %v", got)
	}
}

func TestLine(t *testing.T) {
	lines := setup(t, slog.LevelInfo)
	ctx := WithContainer(WithRequest(context.Background(), "r7"), "c1")
	slog.WarnContext(ctx, "a \"message\"\n<&>", "number", 5, "error", errors.New("no\xff"), "subsystem", "rpc")
	got := lines()[0]
	for key, want := range map[string]string{
		"msg": "a \"message\"\n<&>", "level": "WARN", "version": "1.2", "pid": fmt.Sprint(os.Getpid()),
		"name": "kata-agent", "source": "agent", "subsystem": "rpc", "request-id": "r7", "container-id": "c1",
		"number": "5", "error": "no\ufffd",
	} {
		if got[key] != want {
			t.Errorf("%s is %q, want %q", key, got[key], want)
		}
	}
	if _, err := time.Parse(time.RFC3339Nano, got["ts"]); err != nil {
		t.Error(err)
	}
}

type bomb struct{}

func (bomb) String() string { panic("boom") }

type fuse struct{}

func (fuse) LogValue() slog.Value { panic("boom") }

func TestValues(t *testing.T) {
	lines := setup(t, slog.LevelInfo)
	var nilError *os.PathError
	slog.With("first", 1, "msg", "mine").WithGroup("g").With("first", 2).Info("x",
		"name", "eth0", "k", "old", slog.Group("k2", "a", 1, slog.Group("", "b", true)), "k", "new",
		"bomb", bomb{}, "fuse", fuse{}, "nil", nil, "path", nilError,
		"secret", secret.Bytes("hunter2"), "wrapped", struct{ S secret.Bytes }{secret.Bytes("hunter2")},
		"long", strings.Repeat("ä", maxValue), strings.Repeat("k", 1000), "v", "", "anonymous", "since", time.Minute)
	got := lines()[0]
	for key, want := range map[string]string{
		"msg": "x", "msg_": "mine", "name": "kata-agent", "first": "1", "g.first": "2", "g.name": "eth0",
		"g.k": "new", "g.k2.a": "1", "g.k2.b": "true", "g.nil": "<nil>", "g.since": "1m0s",
	} {
		if got[key] != want {
			t.Errorf("%s is %q, want %q", key, got[key], want)
		}
	}
	if all := fmt.Sprint(got); strings.Contains(all, "hunter2") {
		t.Errorf("a secret is in the log: %s", all)
	}
	for key, value := range got {
		if len(key) > maxKey+8 || len(value) > maxValue+8 {
			t.Errorf("%.20s has %d and %d bytes", key, len(key), len(value))
		}
	}
}

func TestManyFields(t *testing.T) {
	lines := setup(t, slog.LevelInfo)
	var args []any
	for i := range 1000 {
		args = append(args, fmt.Sprint("k", i), i)
	}
	slog.Info("x", args...)
	if n := len(lines()[0]); n != maxFields {
		t.Errorf("line has %d fields", n)
	}
}

func TestLevels(t *testing.T) {
	lines := setup(t, LevelTrace)
	all := []slog.Level{LevelTrace, slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError, LevelCritical}
	for _, l := range all {
		slog.Log(t.Context(), l, "x")
	}
	slog.Log(t.Context(), LevelTrace-1, "below")
	got := lines()
	for i, want := range []string{"TRCE", "DEBG", "INFO", "WARN", "ERRO", "CRIT"} {
		if got[i]["level"] != want {
			t.Errorf("%v is %s, want %s", all[i], got[i]["level"], want)
		}
	}
	if len(got) != len(all) {
		t.Errorf("got %d lines", len(got))
	}
}

func TestQueriesAreLeftOut(t *testing.T) {
	for in, want := range map[string]string{
		"plain? text":     "plain? text",
		"no query: a://b": "no query: a://b",
		"Reading blob body from https://h/b?sig=x failed (EOF), see \"https://i/c?d=e&f\"": "Reading blob body from https://h/b?… failed (EOF), see \"https://i/c?…\"",
		"://?":    "://",
		"x://a?b": "x://a?…",
	} {
		if got := withoutQueries(in); got != want {
			t.Errorf("%q became %q", in, got)
		}
	}
}

func TestOtherLoggers(t *testing.T) {
	lines := setup(t, slog.LevelInfo)
	logrus.WithField("cgroup", "/x").WithError(errors.New("gone")).Warn("from a library")
	logrus.Debug("too quiet")
	log.Print("from another")
	got := lines()
	if len(got) != 2 || got[0]["msg"] != "from a library" || got[0]["level"] != "WARN" || got[0]["cgroup"] != "/x" ||
		got[0]["error"] != "gone" || got[0]["subsystem"] != "library" || got[1]["msg"] != "from another" {
		t.Errorf("got %v", got)
	}
	if logrus.IsLevelEnabled(logrus.DebugLevel) || !logrus.IsLevelEnabled(logrus.InfoLevel) {
		t.Error("logrus has another level")
	}
}

// A console that takes nothing must cost the logger nothing but old lines.
func TestNeverWaits(t *testing.T) {
	r, w := io.Pipe()
	s := newSink(w, nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	logger := slog.New(newHandler(s, slog.LevelInfo, ""))
	const more = 100
	for i := range maxLines + more + 2 {
		logger.Info("x", "i", i)
	}
	s.push(item{line: bytes.Repeat([]byte("y"), maxBytes+1)}) // throws all others out, and stays
	if s.Dropped() < more {
		t.Errorf("%d lines were dropped", s.Dropped())
	}
	expired, stop := context.WithCancel(ctx)
	stop()
	if err := s.Flush(expired); !errors.Is(err, context.Canceled) {
		t.Errorf("flush: %v", err)
	}
	read := make(chan string, 1)
	go func() {
		text, _ := io.ReadAll(r)
		read <- string(text)
	}()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	w.Close()
	if text := <-read; !strings.Contains(text, `"msg":"log lines were lost"`) {
		t.Errorf("the log does not mention lost lines: %.300s", text)
	}
}

func TestFlush(t *testing.T) {
	var out bytes.Buffer
	s := newSink(&out, nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	s.put([]byte("one\n"))
	if err := s.Flush(ctx); err != nil || out.String() != "one\n" {
		t.Errorf("got %q %v", out.String(), err)
	}
	cancel()
	<-done
}

func listen(t *testing.T) (net.Listener, func() net.Conn) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	return l, func() net.Conn {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
}

func TestPort(t *testing.T) {
	l, dial := listen(t)
	s := newSink(nil, l)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	for _, text := range []string{"before anyone listens\n", "to the second reader\n"} {
		s.put([]byte(text))
		conn := dial()
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil || line != text {
			t.Errorf("got %q %v, want %q", line, err, text)
		}
		conn.Close()
		if text[0] == 'b' {
			lose(t, s)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("unix", l.Addr().String()); err == nil {
		t.Error("the port is still open")
	}
}

// lose logs until the sink has noticed that its reader went away.
func lose(t *testing.T, s *Sink) {
	t.Helper()
	for range 1000 {
		s.put([]byte("lost\n"))
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		err := s.Flush(ctx)
		cancel()
		if err != nil { // nobody takes the line: the reader is gone
			s.mu.Lock()
			s.queue, s.size = nil, 0
			s.mu.Unlock()
			return
		}
	}
	t.Fatal("the sink keeps writing to a closed connection")
}

// A reader that connects and reads nothing must not hold up the end.
func TestStuckReader(t *testing.T) {
	l, dial := listen(t)
	s := newSink(nil, l)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	conn := dial()
	defer conn.Close()
	for range maxLines {
		s.put(bytes.Repeat([]byte("x"), 1000))
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Run does not end")
	}
}

func TestConcurrentUse(t *testing.T) {
	lines := setup(t, slog.LevelInfo)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 50 {
				slog.With("i", i).Info("x", "j", j)
			}
		})
	}
	wg.Wait()
	if n := len(lines()); n != 400 {
		t.Errorf("got %d lines", n)
	}
}

func BenchmarkLine(b *testing.B) {
	s := newSink(io.Discard, nil)
	logger := slog.New(newHandler(s, slog.LevelInfo, "1"))
	ctx := WithRequest(b.Context(), "r")
	for b.Loop() {
		logger.InfoContext(ctx, "request", "method", "ReadStdout", "code", 0, "took", time.Second)
	}
}
