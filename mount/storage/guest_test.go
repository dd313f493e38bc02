package storage

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/mount"
	"github.com/coffer-cc/coffer/mount/device"
)

// guest is a root directory with a Manager of the real drivers. It checks at
// the end that ReleaseAll leaves no mount and no descriptor.
type guest struct {
	*testing.T
	*Manager
	root   string
	images *images
}

func newGuest(t *testing.T) *guest {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	g := &guest{T: t, root: t.TempDir(), images: &images{dir: t.TempDir()}}
	d := Deps{
		Root: g.root, Sys: fakeSys(t), Images: g.images, PauseBundle: pauseBundle(t, `{"process":{"args":["/usr/bin/pause","-x"],"cwd":"/"}}`),
		Devices: &device.Finder{Timeout: 50 * time.Millisecond},
	}
	g.Manager = NewManager(d, Handlers(d))
	fds := count(t)
	t.Cleanup(func() {
		if err := g.ReleaseAll(context.Background()); err != nil {
			t.Error(err)
		}
		left, err := mount.Table(g.root)
		if err != nil || len(left) > 0 {
			t.Errorf("mounts left: %v, %v", left, err)
		}
		for i := len(left) - 1; i >= 0; i-- {
			unix.Unmount(left[i].Target, unix.MNT_DETACH)
		}
		if n := count(t); n != fds {
			t.Errorf("%d descriptors open, %d before", n, fds)
		}
		if g.images.held != 0 {
			t.Errorf("%d images not released", g.images.held)
		}
	})
	return g
}

func count(t *testing.T) int {
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

func (g *guest) path(rel string) string { return filepath.Join(g.root, rel) }

func (g *guest) add(owner string, ss ...Storage) []Volume {
	g.Helper()
	vs, err := g.Add(g.Context(), owner, ss)
	if err != nil {
		g.Fatal(err)
	}
	return vs
}

// refused asserts that s fails with the class and leaves nothing behind.
func (g *guest) refused(owner string, s Storage, class func(error) bool) {
	g.Helper()
	before := g.tree()
	if _, err := g.Add(g.Context(), owner, []Storage{s}); !class(err) {
		g.Errorf("got %v", err)
	}
	if after := g.tree(); after != before {
		g.Errorf("left behind: %s, was %s", after, before)
	}
}

// tree lists the mounts and the leaves of the directory tree.
func (g *guest) tree() string {
	table, err := mount.Table(g.root)
	if err != nil {
		g.Fatal(err)
	}
	out := fmt.Sprint(table)
	filepath.WalkDir(g.root, func(p string, d os.DirEntry, err error) error {
		if names, err := os.ReadDir(p); err != nil || len(names) == 0 {
			out += " " + p
		}
		return nil
	})
	return out
}

func (g *guest) write(rel, text string) {
	g.Helper()
	put(g.T, g.path(rel), text)
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

func (g *guest) stat(rel string) *unix.Stat_t {
	g.Helper()
	st := new(unix.Stat_t)
	if err := unix.Lstat(g.path(rel), st); err != nil {
		g.Fatal(err)
	}
	return st
}

func (g *guest) mounted(rel string) bool {
	g.Helper()
	p, err := mount.At(g.root, g.path(rel))
	if err != nil {
		g.Fatal(err)
	}
	on, err := p.Mounted()
	if err != nil {
		g.Fatal(err)
	}
	return on
}

// images is an image store of one plain image. It counts what is held.
type images struct {
	dir    string
	mu     sync.Mutex
	owners map[string]bool
	held   int
	fail   error
}

func (i *images) Pull(_ context.Context, ref, owner string) (Image, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.fail != nil {
		return Image{}, i.fail
	}
	if i.owners == nil {
		i.owners = make(map[string]bool)
	}
	rootfs := filepath.Join(i.dir, owner)
	if err := os.MkdirAll(rootfs, 0o755); err != nil {
		return Image{}, err
	}
	if err := os.WriteFile(filepath.Join(rootfs, "ref"), []byte(ref), 0o644); err != nil {
		return Image{}, err
	}
	i.owners[owner] = true
	i.held = len(i.owners)
	return Image{Rootfs: rootfs, Reference: ref, ManifestDigest: "sha256:abc"}, nil
}

func (i *images) Release(_ context.Context, owner string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.owners, owner)
	i.held = len(i.owners)
	return nil
}

func fakeSys(t *testing.T) string {
	sys := t.TempDir()
	put(t, filepath.Join(sys, "kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"), "3\n")
	return sys
}

func pauseBundle(t *testing.T, config string) string {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "config.json"), config)
	put(t, filepath.Join(dir, "rootfs/usr/bin/pause"), "program")
	return dir
}
