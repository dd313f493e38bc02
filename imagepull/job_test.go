package imagepull_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/imagepull"
	. "github.com/coffer-cc/coffer/imagepull/imagepulltest"
)

func TestRetryJoins(t *testing.T) {
	r := NewRegistry(t)
	l := NewLayer(t, Plain, File("a", strings.Repeat("x", 1<<20)))
	r.Push(t, "app:1", l)
	gate, reached := make(chan struct{}), make(chan struct{})
	r.Break(Fault{Path: l.Digest().String(), Cut: 1000, Gate: gate, Reached: reached})
	p := newPuller(t, r, nil)

	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error)
	go func() {
		_, err := p.Pull(ctx, r.Ref("app:1"), "c1")
		first <- err
	}()
	<-reached
	cancel()
	err := <-first
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "goes on") || !strings.Contains(err.Error(), "of 10") {
		t.Errorf("first caller: %v", err)
	}
	second := make(chan error)
	var rootfs string
	go func() {
		img, err := p.Pull(t.Context(), r.Ref("app:1"), "c1")
		rootfs = img.Rootfs
		second <- err
	}()
	close(gate)
	if err := <-second; err != nil {
		t.Fatal(err)
	}
	if len(read(t, rootfs, "a")) != 1<<20 {
		t.Error("wrong contents")
	}
	if n := r.Count("GET", l.Digest().String()); n != 1 {
		t.Errorf("layer was fetched %d times", n)
	}
}

func TestBrokenConnectionIsPickedUp(t *testing.T) {
	r := NewRegistry(t)
	l := NewLayer(t, Plain, File("a", strings.Repeat("x", 1<<20)))
	r.Push(t, "app:1", l)
	r.Break(Fault{Path: l.Digest().String(), Cut: 500_000, Times: 1})
	p := newPuller(t, r, nil)
	img, err := p.Pull(t.Context(), r.Ref("app:1"), "c1")
	if err != nil {
		t.Fatal(err)
	}
	if len(read(t, img.Rootfs, "a")) != 1<<20 {
		t.Error("wrong contents")
	}
}

func TestStalledConnectionIsPickedUp(t *testing.T) {
	r := NewRegistry(t)
	l := NewLayer(t, Plain, File("a", strings.Repeat("x", 1<<20)))
	r.Push(t, "app:1", l)
	gate := make(chan struct{})
	defer close(gate)
	r.Break(Fault{Path: l.Digest().String(), Cut: 500_000, Times: 1, Gate: gate})
	p := newPuller(t, r, func(c *imagepull.Config) { c.Registry.Stall = 50 * time.Millisecond })
	img, err := p.Pull(t.Context(), r.Ref("app:1"), "c1")
	if err != nil {
		t.Fatal(err)
	}
	if len(read(t, img.Rootfs, "a")) != 1<<20 {
		t.Error("wrong contents")
	}
}

func TestPullTakesTooLong(t *testing.T) {
	r := NewRegistry(t)
	l := NewLayer(t, Plain, File("a", "a"))
	r.Push(t, "app:1", l)
	gate := make(chan struct{})
	defer close(gate)
	r.Break(Fault{Path: l.Digest().String(), Gate: gate})
	p := newPuller(t, r, func(c *imagepull.Config) { c.Timeout = 200 * time.Millisecond })
	_, err := p.Pull(t.Context(), r.Ref("app:1"), "c1")
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "phase fetch") {
		t.Errorf("got %v", err)
	}
}

func TestCloseEndsPulls(t *testing.T) {
	r := NewRegistry(t)
	l := NewLayer(t, Plain, File("a", "a"))
	r.Push(t, "app:1", l)
	gate, reached := make(chan struct{}), make(chan struct{})
	defer close(gate)
	r.Break(Fault{Path: l.Digest().String(), Gate: gate, Reached: reached})
	p := newPuller(t, r, nil)
	done := make(chan error)
	go func() {
		_, err := p.Pull(t.Context(), r.Ref("app:1"), "c1")
		done <- err
	}()
	<-reached
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-done; !errdefs.IsAborted(err) {
		t.Errorf("got %v", err)
	}
	if _, err := p.Pull(t.Context(), r.Ref("app:1"), "c1"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("after close: %v", err)
	}
}
