package storage

import (
	"errors"
	"os"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func TestOverlayfs(t *testing.T) {
	g := newGuest(t)
	g.write("virtual-volumes/l1/f", "one")
	g.write("virtual-volumes/l2/f", "two")
	g.write("c2/rootfs/secret", "x")
	lower := "lowerdir=" + g.path("virtual-volumes/l1") + ":" + g.path("virtual-volumes/l2")
	s := Storage{Driver: "overlayfs", Source: "overlay", FSType: "overlay", MountPoint: g.path("c1/rootfs"),
		Options:       []string{"index=off", lower, "upperdir=" + g.path("shared/up"), "workdir=" + g.path("shared/work")},
		DriverOptions: []string{createDir + g.path("shared/up"), createDir + g.path("shared/work")}}
	g.add("c1", s)
	if got, err := os.ReadFile(g.path("c1/rootfs/f")); string(got) != "one" {
		t.Errorf("got %q, %v", got, err)
	}
	g.write("c1/rootfs/new", "x")
	if _, err := os.Stat(g.path("shared/up/new")); err != nil {
		t.Error(err)
	}
	if err := g.Release(t.Context(), "c1"); err != nil || g.mounted("c1/rootfs") {
		t.Errorf("released: %v", err)
	}

	rw := with(s, func(s *Storage) {
		s.FSType, s.DriverOptions = "fuse3.kata-overlay", nil
		s.Options = []string{overlayRW, "io.katacontainers.fs-opt.layer=/var/lib/layers/x,tar,ro,io.katacontainers.fs-opt.is-layer", lower}
	})
	g.add("c1", rw)
	g.write("c1/rootfs/mine", "x")
	if _, err := os.Stat(g.path("c1/upper/mine")); err != nil {
		t.Error(err)
	}

	for _, tt := range []struct {
		name   string
		change func(*Storage)
		class  func(error) bool
	}{
		{"layer from the guest", func(s *Storage) { s.Options = []string{"lowerdir=/etc"} }, errdefs.IsInvalidArgument},
		{"layer of another container", func(s *Storage) { s.Options = []string{"lowerdir=" + g.path("c2/rootfs")} }, errdefs.IsPermissionDenied},
		{"layer from the store", func(s *Storage) { s.Options = []string{"lowerdir=" + g.path("image/layers")} }, errdefs.IsPermissionDenied},
		{"relative layer", func(s *Storage) { s.Options = []string{"lowerdir=a:b"} }, errdefs.IsInvalidArgument},
		{"layer missing", func(s *Storage) { s.Options = []string{"lowerdir=" + g.path("shared/none")} }, func(err error) bool { return errors.Is(err, unix.ENOENT) }},
		{"no layer", func(s *Storage) { s.Options = nil }, errdefs.IsInvalidArgument},
		{"other way to name a layer", func(s *Storage) { s.Options = []string{"lowerdir+=/etc", lower} }, errdefs.IsInvalidArgument},
		{"upper of another", func(s *Storage) { s.Options = append([]string{"upperdir=" + g.path("c2/rootfs")}, lower) }, errdefs.IsPermissionDenied},
		{"upper with the marker", func(s *Storage) { s.Options = append(s.Options, overlayRW) }, errdefs.IsInvalidArgument},
		{"type", func(s *Storage) { s.FSType = "ext4" }, errdefs.IsInvalidArgument},
		{"directory elsewhere", func(s *Storage) { s.DriverOptions = []string{createDir + "/etc/x"} }, errdefs.IsInvalidArgument},
		{"driver option", func(s *Storage) { s.DriverOptions = []string{"x=y"} }, errdefs.IsInvalidArgument},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := &guest{T: t, Manager: g.Manager, root: g.root}
			g.refused("c3", with(with(s, func(s *Storage) { s.MountPoint = g.path("c3/rootfs") }), tt.change), tt.class)
		})
	}
}
