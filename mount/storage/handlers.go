package storage

import (
	"cmp"
	"context"
	"log/slog"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/mount"
	"github.com/coffer-cc/coffer/mount/crypt"
	"github.com/coffer-cc/coffer/mount/device"
	"github.com/coffer-cc/coffer/mount/watch"
)

// Handlers returns the table of drivers: the name on the wire to its handler.
// Those of disks name the kernel modules that most guests do without.
func Handlers(d Deps) map[string]Handler {
	g := ground{root: cmp.Or(d.Root, DefaultRoot)}
	p := protection{mapper: new(crypt.Mapper), load: d.load, integrity: !d.NoIntegrity, mkfs: cmp.Or(d.Mkfs, "mkfs.ext4"), required: d.Confidential}
	on := func(parse func(string) (device.Matcher, error), modules ...string) block {
		return block{g, d.Devices, parse, func(ctx context.Context) { d.load(ctx, modules...) }, p}
	}
	blk, scsi := on(device.ParseBlock), on(parser(device.ParseSCSIAddress), "virtio_scsi", "sd_mod")
	return map[string]Handler{
		"blk":              blk,                                  // by PCI path or node
		"mmioblk":          on(device.ParseBlock, "virtio_mmio"), // by node
		"blk-ccw":          on(parser(device.ParseCCW)),
		"scsi":             scsi,
		"nvdimm":           on(parser(device.ParsePmem), "nfit", "virtio_pmem", "nd_pmem"),
		layeredDriver:      layered{g, blk, scsi, p},
		"ephemeral":        &ephemeral{ground: g, sys: cmp.Or(d.Sys, "/sys")},
		"image_guest_pull": imageGuestPull{g, d.Images, cmp.Or(d.PauseBundle, "/pause_bundle")},
		"local":            local{g},
		"overlayfs":        overlayFS{g},
		"virtio-fs":        virtioFS{g, d.Confidential},
		"watchable-bind":   &watchable{ground: g, interval: watch.Interval, mirrors: map[string]int{}},
	}
}

// load loads kernel modules that the image may hold. One that it does not hold
// may be part of the kernel, and if not, what needs it fails: so a failure here
// is only noted.
func (d Deps) load(ctx context.Context, modules ...string) {
	if d.LoadModule == nil {
		return
	}
	for _, name := range modules {
		if err := d.LoadModule(ctx, name); err != nil && !errdefs.IsNotFound(err) {
			slog.WarnContext(ctx, "kernel module is not loaded", "name", name, "error", err)
		}
	}
}

// parser turns the parser of one kind of device into that of any.
func parser[M device.Matcher](parse func(string) (M, error)) func(string) (device.Matcher, error) {
	return func(s string) (device.Matcher, error) { return parse(s) }
}

// ground is what handlers share: the root of all mount points.
type ground struct{ root string }

// place returns where s goes. The Manager has checked it before.
func (g ground) place(s Storage) (mount.Place, error) { return mount.At(g.root, s.MountPoint) }
