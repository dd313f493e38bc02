package container_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"runtime"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/coffer-cc/coffer/agent/container"
	"github.com/coffer-cc/coffer/agent/container/containertest"
)

// patience is how long a test waits for what must happen. Only a failing test
// waits that long.
const patience = 20 * time.Second

func patient(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// brief is for calls that must not succeed.
func brief(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

func shell(script string) *specs.Process {
	return &specs.Process{
		Args: []string{"/bin/sh", "-c", script},
		Env:  []string{"PATH=/bin:/usr/bin"},
		Cwd:  "/",
	}
}

func plainSpec(p *specs.Process) *specs.Spec {
	return &specs.Spec{Process: p, Root: &specs.Root{Path: "/"}, Linux: &specs.Linux{}}
}

// plain makes a container of plain processes.
func plain(t testing.TB, p *specs.Process, o container.Options) (*container.Container, *containertest.Driver) {
	t.Helper()
	d := &containertest.Driver{}
	c, err := container.New(patient(t), d, "plain", plainSpec(p), o)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	t.Cleanup(func() {
		if err := c.Destroy(patient(t)); err != nil {
			t.Errorf("Destroy: %v", err)
		}
	})
	return c, d
}

func start(t testing.TB, c *container.Container) *container.Process {
	t.Helper()
	if err := c.Start(patient(t)); err != nil {
		t.Fatalf("Start: %v", err)
	}
	return process(t, c, "")
}

func process(t testing.TB, c *container.Container, execID string) *container.Process {
	t.Helper()
	p, err := c.Process(execID)
	if err != nil {
		t.Fatalf("Process(%q): %v", execID, err)
	}
	return p
}

func wait(t testing.TB, p *container.Process, want int) {
	t.Helper()
	code, err := p.Wait(patient(t))
	if err != nil || code != want {
		t.Fatalf("Wait = %d, %v, want %d", code, err, want)
	}
}

type reader func(ctx context.Context, max int) ([]byte, error)

// readAll reads to the end of the stream.
func readAll(t testing.TB, read reader, chunk int) []byte {
	t.Helper()
	var all []byte
	for {
		b, err := read(patient(t), chunk)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("read after %d bytes: %v", len(all), err)
		}
		if len(b) == 0 || len(b) > chunk {
			t.Fatalf("read returned %d bytes of at most %d", len(b), chunk)
		}
		all = append(all, b...)
	}
}

// until reads until the output contains want.
func until(t testing.TB, read reader, want string) {
	t.Helper()
	var all []byte
	for !bytes.Contains(all, []byte(want)) {
		b, err := read(patient(t), 4096)
		if err != nil {
			t.Fatalf("read %q, then %v, want %q", all, err, want)
		}
		all = append(all, b...)
	}
}

func openFiles(t testing.TB) int {
	t.Helper()
	runtime.GC() // libcontainer leaves some files of failed starts to finalizers
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// sameFiles fails the test if it ends with more open files than it began with.
func sameFiles(t testing.TB) {
	t.Helper()
	before := openFiles(t)
	t.Cleanup(func() {
		for end := time.Now().Add(time.Second); openFiles(t) > before && time.Now().Before(end); {
			runtime.Gosched()
		}
		if after := openFiles(t); after > before {
			t.Errorf("%d open files at the end, %d at the beginning", after, before)
		}
	})
}
