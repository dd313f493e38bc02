package storage

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/mount/device"
)

// recorded is a Finder over a sysfs that names the loop device node as each of
// the devices, and a /dev where it has their names.
func recorded(t *testing.T, node string, devPaths ...string) *device.Finder {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(node, &st); err != nil {
		t.Fatal(err)
	}
	f := &device.Finder{Sys: t.TempDir(), Dev: t.TempDir(), Timeout: 50 * time.Millisecond}
	for _, p := range devPaths {
		name := filepath.Base(p)
		for _, dir := range []string{filepath.Join(f.Sys, p), filepath.Join(f.Sys, "class/block")} {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink("../.."+p, filepath.Join(f.Sys, "class/block", name)); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mknod(filepath.Join(f.Dev, name), unix.S_IFBLK|0o600, int(st.Rdev)); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// use makes a guest whose disks are found by f.
func (g *guest) use(f Finder, change func(*Deps)) {
	d := Deps{Root: g.root, Devices: f}
	if change != nil {
		change(&d)
	}
	g.Manager = NewManager(d, Handlers(d))
	g.Cleanup(func() {
		if err := g.ReleaseAll(g.Context()); err != nil {
			g.Error(err)
		}
	})
}

func TestKindsOfDisks(t *testing.T) {
	node := ext4Disk(t)
	g := newGuest(t)
	g.use(recorded(t, node,
		"/devices/pci0000:00/0000:00:02.0/0000:01:03.0/virtio7/block/vdb",
		"/devices/platform/LNRO0005:01/virtio3/block/vde",
		"/devices/pci0000:00/0000:00:03.0/virtio1/host0/target0:0:1/0:0:1:2/block/sda",
		"/devices/css0/0.0.0003/0.0.0005/virtio3/block/vda",
		"/devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region0/namespace0.0/block/pmem0",
	), nil)
	for driver, source := range map[string]string{
		"blk": "02/03", "mmioblk": "/dev/vde", "scsi": "1:2", "blk-ccw": "0.0.0005", "nvdimm": "/dev/pmem0",
	} {
		t.Run(driver, func(t *testing.T) {
			s := Storage{Driver: driver, Source: source, FSType: "ext4", MountPoint: g.path("sandbox/storage/" + driver), Options: []string{"ro"}}
			g.add("c1", s)
			if text, err := os.ReadFile(s.MountPoint + "/sub/f"); string(text) != "x" || err != nil {
				t.Errorf("read %q, %v", text, err)
			}
			if !strings.Contains(g.flags(s.MountPoint), "nodev") {
				t.Errorf("mounted with %s", g.flags(s.MountPoint))
			}
			if err := g.Release(t.Context(), "c1"); err != nil {
				t.Error(err)
			}
			in := &guest{T: t, Manager: g.Manager, root: g.root}
			in.refused("c1", with(s, func(s *Storage) { s.Source = "no such/" }), errdefs.IsInvalidArgument)
		})
	}
}

// flags are the options of the mount at path, as the kernel shows them.
func (g *guest) flags(path string) string {
	g.Helper()
	table, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		g.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); f[4] == path {
			return f[5]
		}
	}
	return "nothing"
}

func TestFreshFilesystem(t *testing.T) {
	node := ext4Disk(t)
	g := newGuest(t)
	s := Storage{Driver: "blk", Source: node, FSType: "ext4", MountPoint: g.path("sandbox/storage/fresh"),
		DriverOptions: []string{"create_filesystem"}, FSGroup: &FSGroup{GroupID: 1234}}

	g.use(&device.Finder{}, func(d *Deps) { d.Mkfs = "mkfs.nothing" })
	g.refused("c1", s, errdefs.IsNotImplemented)

	broken := filepath.Join(t.TempDir(), "mkfs")
	put(t, broken, "#!/bin/sh\necho no luck >&2; exit 1\n")
	g.use(&device.Finder{}, func(d *Deps) { d.Mkfs = broken })
	g.refused("c1", s, func(err error) bool { return err != nil && strings.Contains(err.Error(), "no luck") })

	g.use(&device.Finder{}, nil)
	g.add("c1", s)
	if _, err := os.Stat(s.MountPoint + "/sub"); err == nil {
		t.Error("what was on the disk is still there")
	}
	if st := g.stat("sandbox/storage/fresh"); st.Gid != 1234 {
		t.Errorf("gid %d", st.Gid)
	}
	out, err := exec.Command("dumpe2fs", "-h", node).CombinedOutput()
	if err != nil || strings.Contains(string(out), "has_journal") || !strings.Contains(string(out), "Inode size:\t          128") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestEncryptionWithoutKernel sees a refusal where there is no device-mapper:
// nothing is mounted, and nothing formatted.
func TestEncryptionWithoutKernel(t *testing.T) {
	if _, err := os.Stat("/dev/mapper/control"); err == nil {
		t.Skip("this kernel has device-mapper: the VM tests encrypt with it")
	}
	node := ext4Disk(t)
	g := newGuest(t)
	g.refused("c1", Storage{Driver: "blk", Source: node, FSType: "ext4", MountPoint: g.path("v"),
		DriverOptions: []string{"create_filesystem", "encryption_key=ephemeral"}}, errdefs.IsNotImplemented)
}
