package storage

import (
	"cmp"

	"github.com/coffer-cc/coffer/mount"
)

// Handlers returns the table of drivers: the name on the wire to its handler.
func Handlers(d Deps) map[string]Handler {
	g := ground{root: cmp.Or(d.Root, DefaultRoot)}
	block := blk{ground: g, devices: d.Devices}
	return map[string]Handler{
		"blk":              block, // by PCI path or node
		"mmioblk":          block, // by node
		"ephemeral":        &ephemeral{ground: g, sys: cmp.Or(d.Sys, "/sys")},
		"image_guest_pull": imageGuestPull{g, d.Images, cmp.Or(d.PauseBundle, "/pause_bundle")},
		"local":            local{g},
		"overlayfs":        overlayFS{g},
		"virtio-fs":        virtioFS{g},
	}
}

// ground is what handlers share: the root of all mount points.
type ground struct{ root string }

// place returns where s goes. The Manager has checked it before.
func (g ground) place(s Storage) (mount.Place, error) { return mount.At(g.root, s.MountPoint) }
