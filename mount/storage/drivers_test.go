package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/mount"
)

func TestLocal(t *testing.T) {
	g := newGuest(t)
	s := Storage{Driver: "local", Source: "local", FSType: "local", MountPoint: g.path("shared/containers/sid/rootfs/local/scratch"), Options: []string{"mode=0777", "fsgid=2000"}}
	g.add("c1", s)
	if st := g.stat("shared/containers/sid/rootfs/local/scratch"); st.Mode&0o7777 != unix.S_ISGID|0o777 || st.Gid != 2000 {
		t.Errorf("mode %o, gid %d", st.Mode, st.Gid)
	}
	g.write("shared/containers/sid/rootfs/local/scratch/data", "x")
	if err := g.Release(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(s.MountPoint, "data")); err != nil {
		t.Error(err)
	}
	if err := g.ReleaseAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.MountPoint); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("still there: %v", err)
	}
	g.refused("c1", with(s, func(s *Storage) { s.Options = []string{"mode=9"} }), errdefs.IsInvalidArgument)
	g.refused("c1", with(s, func(s *Storage) { s.Options = []string{"mode=70000"} }), errdefs.IsInvalidArgument)
}

func TestMountPointThroughSymlink(t *testing.T) {
	g := newGuest(t)
	outside := t.TempDir()
	if err := os.Symlink(outside, g.path("link")); err != nil {
		t.Fatal(err)
	}
	for _, driver := range []string{"local", "ephemeral"} {
		for _, rel := range []string{"link", "link/deep"} {
			_, err := g.Add(t.Context(), "c1", []Storage{{Driver: driver, FSType: "tmpfs", MountPoint: g.path(rel)}})
			if err == nil {
				t.Errorf("%s went through a symlink", driver)
			}
		}
	}
	if names, _ := os.ReadDir(outside); len(names) != 0 {
		t.Errorf("made outside: %v", names)
	}
}

func TestVirtioFS(t *testing.T) {
	g := newGuest(t)
	s := Storage{Driver: "virtio-fs", Source: sharedTag, FSType: "virtiofs", MountPoint: g.path("shared/containers/")}
	g.refused("sandbox", with(s, func(s *Storage) { s.Source = "/etc" }), errdefs.IsInvalidArgument)
	g.refused("sandbox", with(s, func(s *Storage) { s.FSType = "9p" }), errdefs.IsInvalidArgument)
	if _, err := g.Add(t.Context(), "sandbox", []Storage{s}); err == nil {
		t.Skip("this machine has a share of that name")
	}
	if _, err := os.Lstat(g.path("shared/containers")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("mount point left: %v", err)
	}
}

// A whole request, whose third storage fails, leaves nothing.
func TestRequestIsUndone(t *testing.T) {
	g := newGuest(t)
	before := g.tree()
	_, err := g.Add(t.Context(), "c1", []Storage{
		pull(g, "c1", "busybox", map[string]string{}),
		{Driver: "ephemeral", Source: "tmpfs", FSType: "tmpfs", MountPoint: g.path("mem")},
		{Driver: "blk", Source: "1f/1f", FSType: "ext4", MountPoint: g.path("disk")},
	})
	if !errdefs.IsUnavailable(err) {
		t.Errorf("got %v", err)
	}
	os.Remove(g.path("c1")) // the bundle is the sandbox's to remove
	if after := g.tree(); after != before {
		t.Errorf("left behind: %s", after)
	}
	if g.images.held != 0 {
		t.Error("image still held")
	}
	g.add("c1", pull(g, "c1", "busybox", map[string]string{}))
}

func TestParallelAdd(t *testing.T) {
	g := newGuest(t)
	s := Storage{Driver: "ephemeral", Source: "tmpfs", FSType: "tmpfs", MountPoint: g.path("sandbox/ephemeral/x")}
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			if _, err := g.Add(context.Background(), fmt.Sprint("c", i), []Storage{s}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if table, _ := mount.Table(s.MountPoint); len(table) != 1 {
		t.Errorf("%d mounts", len(table))
	}
}
