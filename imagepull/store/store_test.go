package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/coffer-cc/coffer/imagepull/store"
	"github.com/coffer-cc/coffer/mount"
)

func open(t *testing.T, root string) *store.Store {
	t.Helper()
	s, err := store.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func key(name string) store.Key { return store.Key{DiffID: digest.FromString(name)} }

// filled returns a Fill that writes a file of size bytes.
func filled(size int) store.Fill {
	return func(_ context.Context, dir string) (store.Layer, error) {
		return store.Layer{Bytes: int64(size)}, os.WriteFile(filepath.Join(dir, "f"), make([]byte, size), 0o600)
	}
}

func never(t *testing.T) store.Fill {
	return func(context.Context, string) (store.Layer, error) {
		t.Error("filled again")
		return store.Layer{}, errors.New("filled again")
	}
}

func list(t *testing.T, root, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(root, dir))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestLayer(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	if s.Has(key("a")) {
		t.Error("there before it was filled")
	}
	l, err := s.Layer(t.Context(), key("a"), "u1", filled(3))
	if err != nil || l.Bytes != 3 || filepath.Dir(l.Dir) != filepath.Join(root, "layers") {
		t.Fatalf("%+v, %v", l, err)
	}
	if st, err := os.Stat(filepath.Join(l.Dir, "f")); err != nil || st.Size() != 3 {
		t.Error(err)
	}
	again, err := s.Layer(t.Context(), key("a"), "u2", never(t))
	if err != nil || again.Dir != l.Dir || !s.Has(key("a")) {
		t.Errorf("%+v, %v", again, err)
	}
	// The same contents by another key are another layer.
	scoped := key("a")
	scoped.Scope = "kbs:///default/key/1"
	other, err := s.Layer(t.Context(), scoped, "u1", filled(3))
	if err != nil || other.Dir == l.Dir {
		t.Errorf("%+v, %v", other, err)
	}
	if st, err := os.Stat(filepath.Join(root, "layers")); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("layers are open to %v, %v", st.Mode(), err)
	}
}

// A fill that fails leaves nothing, and the next caller fills anew.
func TestFailedFill(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	broken := errors.New("broken")
	_, err := s.Layer(t.Context(), key("a"), "u1", func(_ context.Context, dir string) (store.Layer, error) {
		return store.Layer{}, errors.Join(os.WriteFile(filepath.Join(dir, "half"), nil, 0o600), broken)
	})
	if !errors.Is(err, broken) || s.Has(key("a")) || len(list(t, root, "staging"))+len(list(t, root, "layers")) > 0 {
		t.Errorf("%v; left %q %q", err, list(t, root, "staging"), list(t, root, "layers"))
	}
	if err := s.Pin(key("a"), "u1"); !errdefs.IsNotFound(err) {
		t.Errorf("pin of nothing: %v", err)
	}
	if _, err := s.Layer(t.Context(), key("a"), "u1", filled(1)); err != nil {
		t.Error(err)
	}
}

// Many callers share one fill; when it fails one of them tries its own.
func TestOneFillAtATime(t *testing.T) {
	s := open(t, t.TempDir())
	var fills, running atomic.Int32
	fill := func(ctx context.Context, dir string) (store.Layer, error) {
		if running.Add(1) > 1 {
			t.Error("two fills at the same time")
		}
		defer running.Add(-1)
		if fills.Add(1) < 3 {
			return store.Layer{}, errors.New("broken")
		}
		return filled(1)(ctx, dir)
	}
	var failed atomic.Int32
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if _, err := s.Layer(t.Context(), key("a"), fmt.Sprint(i), fill); err != nil {
				failed.Add(1)
			}
		})
	}
	wg.Wait()
	if fills.Load() != 3 || failed.Load() != 2 {
		t.Errorf("%d fills, %d callers failed", fills.Load(), failed.Load())
	}
}

func TestWaitingEndsWithTheContext(t *testing.T) {
	s := open(t, t.TempDir())
	started, finish := make(chan struct{}), make(chan struct{})
	first := make(chan error)
	go func() {
		_, err := s.Layer(context.Background(), key("a"), "u1", func(ctx context.Context, dir string) (store.Layer, error) {
			close(started)
			<-finish
			return filled(1)(ctx, dir)
		})
		first <- err
	}()
	<-started
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Layer(ctx, key("a"), "u2", never(t)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(finish)
	if err := <-first; err != nil {
		t.Error(err)
	}
}

// Open takes whatever an earlier life has left for untrue.
func TestOpenEmpties(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	if _, err := s.Layer(t.Context(), key("a"), "u1", filled(1)); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"staging/7/half", "layers/9/etc/passwd"} {
		if err := os.MkdirAll(filepath.Join(root, f), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s = open(t, root)
	if s.Has(key("a")) || len(list(t, root, "staging"))+len(list(t, root, "layers")) > 0 {
		t.Errorf("left %q %q", list(t, root, "staging"), list(t, root, "layers"))
	}
	if err := os.WriteFile(filepath.Join(root, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(filepath.Join(root, "file")); err == nil {
		t.Error("opened a file")
	}
}

// small is a store on a file system of 1 MiB.
func small(t *testing.T) (*store.Store, string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a small file system needs root to mount")
	}
	root := t.TempDir()
	if err := mount.Do(mount.Request{Source: "tmpfs", FSType: "tmpfs", Options: mount.Options{Data: "size=1m,nr_inodes=100"}}, root); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mount.UnmountLazy(root) })
	return open(t, root), root
}

// Room is made by removing what nobody uses, the least recently used first, and
// never what is pinned.
func TestReserve(t *testing.T) {
	s, root := small(t)
	for _, name := range []string{"a", "b", "c"} {
		if _, err := s.Layer(t.Context(), key(name), "user "+name, filled(200<<10)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Reserve(800<<10, 800<<10); !errdefs.IsResourceExhausted(err) || !strings.Contains(err.Error(), "819200 bytes are needed") || !strings.Contains(err.Error(), root) {
		t.Errorf("all are pinned: %v", err)
	}
	s.Release("user a")
	s.Release("user b")
	if err := s.Pin(key("a"), "another"); err != nil { // used again, and let go of: now b is the oldest
		t.Fatal(err)
	}
	s.Release("another")
	if err := s.Reserve(500<<10, 500<<10); err != nil {
		t.Error(err)
	}
	if !s.Has(key("a")) || s.Has(key("b")) || !s.Has(key("c")) || len(list(t, root, "layers")) != 2 {
		t.Errorf("wrong layers are left: %q", list(t, root, "layers"))
	}
	// What is wanted clears out more than what is needed, and lacking it is no error.
	if err := s.Reserve(1, 10<<20); err != nil || s.Has(key("a")) || !s.Has(key("c")) {
		t.Errorf("wish: %v", err)
	}
	if _, err := s.Layer(t.Context(), key("b"), "user b", filled(1)); err != nil {
		t.Errorf("a removed layer cannot come back: %v", err)
	}
}

func TestNoInodes(t *testing.T) {
	s, _ := small(t)
	_, err := s.Layer(t.Context(), key("a"), "u", func(_ context.Context, dir string) (store.Layer, error) {
		for i := range 200 {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o600); err != nil {
				return store.Layer{}, err
			}
		}
		return store.Layer{}, nil
	})
	if err == nil {
		t.Fatal("there were inodes enough")
	}
	if _, inodes, err := s.Free(); err != nil || inodes < 90 {
		t.Errorf("%d inodes are free after the failure, %v", inodes, err)
	}
}

// Fills, pins, releases and evictions at the same time: whoever holds a pin has
// the layer.
func TestConcurrently(t *testing.T) {
	s, root := small(t)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			user := fmt.Sprint("user", w)
			random := rand.New(rand.NewPCG(uint64(w), 1))
			for range 200 {
				l, err := s.Layer(t.Context(), key(fmt.Sprint(random.IntN(5))), user, filled(10<<10))
				if err != nil {
					t.Error(err)
					return
				}
				if err := s.Reserve(0, 2<<20); err != nil {
					t.Error(err)
				}
				if _, err := os.Stat(filepath.Join(l.Dir, "f")); err != nil {
					t.Errorf("pinned layer is gone: %v", err)
				}
				s.Release(user)
			}
		})
	}
	wg.Wait()
	if err := s.Reserve(0, 2<<20); err != nil || len(list(t, root, "layers"))+len(list(t, root, "staging")) > 0 {
		t.Errorf("left %q %q, %v", list(t, root, "layers"), list(t, root, "staging"), err)
	}
}
