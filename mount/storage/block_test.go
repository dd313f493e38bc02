package storage

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// ext4Disk makes a loop device of an ext4 file system with two files.
func ext4Disk(t *testing.T) string {
	t.Helper()
	for _, tool := range []string{"mke2fs", "losetup"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("no %s to make a disk with", tool)
		}
	}
	dir, image := t.TempDir(), filepath.Join(t.TempDir(), "disk")
	put(t, filepath.Join(dir, "sub/f"), "x")
	if err := os.Symlink("/etc", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mke2fs", "-q", "-t", "ext4", "-d", dir, image, "4M").CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v, %s", err, out)
	}
	return loopDevice(t, image)
}

// loopDevice makes a loop device of an image.
func loopDevice(t *testing.T, image string) string {
	t.Helper()
	out, err := exec.Command("losetup", "--find", "--show", image).CombinedOutput()
	if err != nil {
		t.Skipf("no loop device to be had: %s", out)
	}
	node := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", node).CombinedOutput(); err != nil {
			t.Errorf("losetup: %v, %s", err, out)
		}
	})
	return node
}

func TestBlk(t *testing.T) {
	node := ext4Disk(t)
	g := newGuest(t)
	etc := new(unix.Stat_t)
	if err := unix.Stat("/etc", etc); err != nil {
		t.Fatal(err)
	}
	s := Storage{Driver: "blk", Source: node, FSType: "ext4", MountPoint: g.path("sandbox/storage/Lw=="), Options: []string{"rw", "nosuid"}, FSGroup: &FSGroup{GroupID: 1000}}
	g.add("c1", s)
	for rel, want := range map[string]uint32{"": unix.S_ISGID | 0o775, "sub": unix.S_ISGID | 0o775, "sub/f": 0o775} {
		if st := g.stat("sandbox/storage/Lw==/" + rel); st.Gid != 1000 || st.Mode&0o7777 != want {
			t.Errorf("%q: gid %d, mode %o, want %o", rel, st.Gid, st.Mode&0o7777, want)
		}
	}
	if st := g.stat("sandbox/storage/Lw==/link"); st.Gid == 1000 {
		t.Error("gave a symlink away")
	}
	if now := new(unix.Stat_t); unix.Stat("/etc", now) != nil || now.Gid != etc.Gid || now.Mode != etc.Mode {
		t.Error("went through the symlink to /etc")
	}
	g.add("c2", s)
	for _, owner := range []string{"c1", "c2"} {
		if !g.mounted("sandbox/storage/Lw==") {
			t.Fatal("gone before its last owner")
		}
		if err := g.Release(t.Context(), owner); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(s.MountPoint); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("mount point left: %v", err)
	}

	// Read-only: the group is left alone rather than an error.
	g.add("c1", with(s, func(s *Storage) { s.Options = []string{"ro"}; s.FSGroup = &FSGroup{GroupID: 7} }))
	if st := g.stat("sandbox/storage/Lw==/sub"); st.Gid != 1000 {
		t.Errorf("gid %d", st.Gid)
	}
	if err := g.Release(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}

	// OnRootMismatch with a root that fits touches nothing below.
	g.add("c1", with(s, func(s *Storage) { s.FSGroup = nil }))
	if err := os.Chown(g.path("sandbox/storage/Lw==/sub/f"), 0, 5); err != nil {
		t.Fatal(err)
	}
	g.Release(t.Context(), "c1")
	g.add("c1", with(s, func(s *Storage) { s.FSGroup = &FSGroup{GroupID: 1000, OnRootMismatch: true} }))
	if st := g.stat("sandbox/storage/Lw==/sub/f"); st.Gid != 5 {
		t.Errorf("gid %d, want 5", st.Gid)
	}
	g.Release(t.Context(), "c1")

	g.Release(t.Context(), "c1")
	g.add("c1", with(s, func(s *Storage) { s.Options = []string{"discard"}; s.Shared = true }))

	// The first shape is that of vhost-user disks, the second that of a bind
	// mount whose source on the host is a disk.
	bind := Storage{Driver: "blk", Source: node, FSType: "bind", MountPoint: g.path("sandbox/storage/raw"), Options: []string{"bind"}}
	g.add("c1", bind)
	g.add("c1", with(bind, func(s *Storage) {
		s.MountPoint, s.Options = g.path("sandbox/storage/raw2"), []string{"rbind", "rprivate", "ro"}
	}))
	if st := g.stat("sandbox/storage/raw"); st.Mode&unix.S_IFMT != unix.S_IFBLK {
		t.Errorf("mode %o is no disk", st.Mode)
	}
}

func TestBlkRefuses(t *testing.T) {
	g := newGuest(t)
	base := Storage{Driver: "blk", Source: "/dev/loop0", FSType: "ext4", MountPoint: g.path("v")}
	for _, tt := range []struct {
		name   string
		change func(*Storage)
		class  func(error) bool
	}{
		{"encryption of what is there", func(s *Storage) { s.DriverOptions = []string{"encryption_key=ephemeral"} }, errdefs.IsInvalidArgument},
		{"encryption under another key", func(s *Storage) { s.DriverOptions = []string{"encryption_key=kbs:///a/b/c", "create_filesystem"} }, errdefs.IsInvalidArgument},
		{"another file system", func(s *Storage) { s.FSType = "xfs"; s.DriverOptions = []string{"create_filesystem"} }, errdefs.IsInvalidArgument},
		{"verity without layers", func(s *Storage) { s.Options = []string{"ro", "X-kata.dmverity-enabled=true"} }, errdefs.IsInvalidArgument},
		{"devices", func(s *Storage) { s.Options = []string{"dev"} }, errdefs.IsPermissionDenied},
		{"a second device", func(s *Storage) { s.Options = []string{"noatime,logdev=/dev/vdb"} }, errdefs.IsPermissionDenied},
		{"unknown protection", func(s *Storage) { s.DriverOptions = []string{"integrity=yes"} }, errdefs.IsInvalidArgument},
		{"type without a disk", func(s *Storage) { s.FSType = "tmpfs" }, errdefs.IsInvalidArgument},
		{"bind with a type", func(s *Storage) { s.Options = []string{"bind"} }, errdefs.IsInvalidArgument},
		{"not a PCI path", func(s *Storage) { s.Source = "zz" }, errdefs.IsInvalidArgument},
		{"node that climbs", func(s *Storage) { s.Source = "/dev/../etc/passwd" }, errdefs.IsInvalidArgument},
		{"not a disk", func(s *Storage) { s.Source = "/dev/null" }, errdefs.IsUnavailable},
		{"absent", func(s *Storage) { s.Source = "1f/1f" }, errdefs.IsUnavailable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := &guest{T: t, Manager: g.Manager, root: g.root}
			g.refused("c1", with(base, tt.change), tt.class)
		})
	}
}
