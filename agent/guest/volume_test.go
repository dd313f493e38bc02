package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// oneVolume is a ledger that holds one mount.
type oneVolume struct{ path string }

func (v oneVolume) Visit(_ context.Context, path string, f func(*os.File) error) error {
	if path != v.path {
		return fmt.Errorf("no storage at %q: %w", path, errdefs.ErrNotFound)
	}
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return f(dir)
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// disk is an image of some size behind a loop device.
type disk struct{ image, loop string }

func newDisk(t *testing.T, size int64) disk {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root for a loop device")
	}
	d := disk{image: filepath.Join(t.TempDir(), "disk")}
	d.truncate(t, size)
	out, err := exec.Command("losetup", "--find", "--show", d.image).CombinedOutput()
	if err != nil {
		t.Skipf("this machine gives no loop device: %v: %s", err, out)
	}
	d.loop = strings.TrimSpace(string(out))
	t.Cleanup(func() { run(t, "losetup", "--detach", d.loop) })
	return d
}

func (d disk) truncate(t *testing.T, size int64) {
	t.Helper()
	f, err := os.OpenFile(d.image, os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		err = errors.Join(f.Truncate(size), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// grow makes the disk larger, as a host does under a running guest.
func (d disk) grow(t *testing.T, size int64) {
	t.Helper()
	d.truncate(t, size)
	run(t, "losetup", "--set-capacity", d.loop)
}

// mounted makes a file system on the disk and mounts it.
func (d disk) mounted(t *testing.T, fstype string, mkfs ...string) string {
	t.Helper()
	run(t, mkfs[0], append(mkfs[1:], d.loop)...)
	dir := t.TempDir()
	if err := unix.Mount(d.loop, dir, fstype, 0, ""); errors.Is(err, unix.ENODEV) {
		t.Skipf("the kernel has no %s", fstype)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestResizeVolume(t *testing.T) {
	for _, tc := range []struct {
		fstype      string
		mkfs        []string
		size, large int64
	}{
		{"ext4", []string{"mkfs.ext4", "-q"}, 64 << 20, 160 << 20},
		{"xfs", []string{"mkfs.xfs", "-q"}, 320 << 20, 640 << 20},
	} {
		t.Run(tc.fstype, func(t *testing.T) {
			if _, err := exec.LookPath(tc.mkfs[0]); err != nil {
				t.Skip(err)
			}
			d := newDisk(t, tc.size)
			dir := d.mounted(t, tc.fstype, tc.mkfs...)
			if err := os.WriteFile(filepath.Join(dir, "kept"), []byte("data"), 0o600); err != nil {
				t.Fatal(err)
			}
			v := Volumes{oneVolume{dir}}
			before := statsOf(t, v, dir)
			wantSizeError(t, v.Resize(t.Context(), dir, uint64(tc.large)), "more than the")
			if now := statsOf(t, v, dir); now.Bytes.Total != before.Bytes.Total {
				t.Errorf("a refused resize changed %d bytes to %d", before.Bytes.Total, now.Bytes.Total)
			}
			d.grow(t, tc.large)
			for range 2 { // the size that is there is no error
				err := v.Resize(t.Context(), dir, uint64(tc.large))
				if errors.Is(err, unix.EPERM) && !mayResize(t) {
					t.Skip("ext4 wants CAP_SYS_RESOURCE, which this machine does not give; vmtest resizes one in a guest")
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			after := statsOf(t, v, dir)
			if grown := int64(after.Bytes.Total - before.Bytes.Total); grown < (tc.large-tc.size)*9/10 {
				t.Errorf("grown by %d bytes, wanted %d", grown, tc.large-tc.size)
			}
			wantSizeError(t, v.Resize(t.Context(), dir, uint64(tc.size)), "less than the")
			if text, err := os.ReadFile(filepath.Join(dir, "kept")); err != nil || string(text) != "data" {
				t.Errorf("the file reads %q, %v", text, err)
			}
		})
	}
}

// mayResize tells whether this process has CAP_SYS_RESOURCE.
func mayResize(t *testing.T) bool {
	t.Helper()
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&head, &data[0]); err != nil {
		t.Fatal(err)
	}
	return data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}

func statsOf(t *testing.T, v Volumes, dir string) VolumeStats {
	t.Helper()
	s, err := v.Stats(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func wantSizeError(t *testing.T, err error, text string) {
	t.Helper()
	if !errdefs.IsInvalidArgument(err) || !strings.HasPrefix(err.Error(), "size: ") || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v", err)
	}
}

func TestVolumeStats(t *testing.T) {
	d := newDisk(t, 64<<20)
	dir := d.mounted(t, "ext4", "mkfs.ext4", "-q")
	v := Volumes{oneVolume{dir}}
	before := statsOf(t, v, dir)
	if b := before.Bytes; b.Total < 40<<20 || b.Total > 64<<20 || b.Used+b.Available != b.Total {
		t.Errorf("bytes %+v", b)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), make([]byte, 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	unix.Sync() // blocks are counted when they are allocated
	after := statsOf(t, v, dir)
	if used := after.Bytes.Used - before.Bytes.Used; used < 8<<20 || used > 9<<20 {
		t.Errorf("a file of 8 MiB takes %d bytes", used)
	}
	if used := after.Inodes.Used - before.Inodes.Used; used != 1 {
		t.Errorf("a file takes %d inodes", used)
	}
}

func TestVolumesRefuse(t *testing.T) {
	dir := t.TempDir()
	v := Volumes{oneVolume{dir}}
	if _, err := v.Stats(t.Context(), "/etc"); !errdefs.IsNotFound(err) || !strings.HasPrefix(err.Error(), "volume_guest_path: ") {
		t.Errorf("path that is not mounted: %v", err)
	}
	if err := v.Resize(t.Context(), "/etc", 1<<30); !errdefs.IsNotFound(err) || !strings.HasPrefix(err.Error(), "volume_guest_path: ") {
		t.Errorf("path that is not mounted: %v", err)
	}
	for _, size := range []uint64{0, 1<<64 - 1, 1<<60 + 1} {
		wantSizeError(t, v.Resize(t.Context(), dir, size), "no size of a volume")
	}
	if os.Getuid() != 0 {
		t.Skip("needs root to mount")
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, 0)
	if err := v.Resize(t.Context(), dir, 2<<20); !errdefs.IsNotImplemented(err) {
		t.Errorf("tmpfs: %v", err)
	}
}
