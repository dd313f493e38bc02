package storage

import (
	"cmp"

	"github.com/coffer-cc/coffer/mount"
	"github.com/coffer-cc/coffer/mount/crypt"
	"github.com/coffer-cc/coffer/mount/device"
	"github.com/coffer-cc/coffer/mount/watch"
)

// Handlers returns the table of drivers: the name on the wire to its handler.
func Handlers(d Deps) map[string]Handler {
	g := ground{root: cmp.Or(d.Root, DefaultRoot)}
	fresh := scratch{mapper: new(crypt.Mapper), integrity: !d.NoIntegrity, mkfs: cmp.Or(d.Mkfs, "mkfs.ext4")}
	on := func(parse func(string) (device.Matcher, error)) block { return block{g, d.Devices, parse, fresh} }
	blk, scsi := on(device.ParseBlock), on(parser(device.ParseSCSIAddress))
	return map[string]Handler{
		"blk":              blk, // by PCI path or node
		"mmioblk":          blk, // by node
		"blk-ccw":          on(parser(device.ParseCCW)),
		"scsi":             scsi,
		"nvdimm":           on(parser(device.ParsePmem)),
		layeredDriver:      layered{g, blk, scsi, fresh.mapper},
		"ephemeral":        &ephemeral{ground: g, sys: cmp.Or(d.Sys, "/sys")},
		"image_guest_pull": imageGuestPull{g, d.Images, cmp.Or(d.PauseBundle, "/pause_bundle")},
		"local":            local{g},
		"overlayfs":        overlayFS{g},
		"virtio-fs":        virtioFS{g},
		"watchable-bind":   &watchable{ground: g, interval: watch.Interval, mirrors: map[string]int{}},
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
