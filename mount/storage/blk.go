package storage

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/mount"
	"github.com/coffer-cc/coffer/mount/device"
)

// blk mounts a disk. The source is its PCI path or its node. With the type
// "bind" the node itself appears at the mount point.
type blk struct {
	ground
	devices Finder
}

// blockTypes are the file systems of disks. Others, such as overlay or proc,
// would ignore the disk and mount something else.
var blockTypes = []string{"ext4", "ext3", "ext2", "xfs", "btrfs", "erofs", "squashfs", "vfat", "iso9660", "bind"}

// Attach implements Handler.
func (b blk) Attach(ctx context.Context, _ string, s Storage) (Volume, error) {
	if err := b.check(s); err != nil {
		return nil, err
	}
	o, err := b.options(s)
	if err != nil {
		return nil, err
	}
	m, err := device.ParseBlock(s.Source)
	if err != nil {
		return nil, err
	}
	p, err := b.place(s)
	if err != nil {
		return nil, err
	}
	if b.devices == nil {
		return nil, fmt.Errorf("no way to find devices: %w", errdefs.ErrNotImplemented)
	}
	node, err := b.devices.Wait(ctx, m)
	if err != nil {
		return nil, err
	}
	if _, _, err := device.BlockNumber(node); err != nil {
		return nil, err
	}
	if s.FSType == "bind" {
		return bindNode(ctx, p, node, o)
	}
	return attachVolume(attach(ctx, p, s, func() error {
		return p.Mount(mount.Request{Source: node, FSType: s.FSType, Options: o})
	}))
}

// check refuses what asks for protection that is not there: mounting without
// it would show the data to the host.
func (b blk) check(s Storage) error {
	if err := oneOf(s, blockTypes...); err != nil {
		return err
	}
	for _, d := range s.DriverOptions {
		switch {
		case d == "create_filesystem" || strings.HasPrefix(d, "encryption_key="):
			return fmt.Errorf("driver option %.80q is not supported yet: %w", d, errdefs.ErrNotImplemented)
		case !strings.HasPrefix(d, "io.katacontainers.volume"):
			return fmt.Errorf("unknown driver option %.80q for driver %s: %w", d, s.Driver, errdefs.ErrInvalidArgument)
		}
	}
	for _, w := range mount.SplitOptions(s.Options) {
		if strings.HasPrefix(w, "X-kata.") {
			return fmt.Errorf("mount option %.80q is not supported yet: %w", w, errdefs.ErrNotImplemented)
		}
	}
	return nil
}

// options allows the word bind with the type of that name, and only there.
func (b blk) options(s Storage) (mount.Options, error) {
	if s.FSType != "bind" {
		return options(s)
	}
	o, err := mount.ParseOptions(s.Options)
	o.Flags = o.Flags&^(unix.MS_REC|unix.MS_REMOUNT|unix.MS_MOVE) | unix.MS_BIND
	o.Data = ""
	return o, err
}

// bindNode makes the node of a disk appear at p.
func bindNode(ctx context.Context, p mount.Place, node string, o mount.Options) (Volume, error) {
	m, err := prepare(p, p.MakeFile)
	if err != nil {
		return nil, err
	}
	if err := p.Mount(mount.Request{Source: node, Options: o}); err != nil {
		m.cleanUp(ctx)
		return nil, err
	}
	return m, nil
}
