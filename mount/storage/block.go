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

// block mounts a disk of one kind. With the type "bind" the node itself appears
// at the mount point. Driver options may ask for a fresh file system and for
// encryption under a key that nobody has, see protection.
type block struct {
	ground
	devices Finder
	parse   func(source string) (device.Matcher, error)
	load    func(context.Context) // the kernel modules of its bus
	protect protection
}

// blockTypes are the file systems of disks. Others, such as overlay or proc,
// would ignore the disk and mount something else.
var blockTypes = []string{"ext4", "ext3", "ext2", "xfs", "btrfs", "erofs", "squashfs", "vfat", "iso9660", "bind"}

// Attach implements Handler.
func (b block) Attach(ctx context.Context, _ string, s Storage) (Volume, error) {
	wish, err := b.check(s)
	if err != nil {
		return nil, err
	}
	o, err := b.options(s)
	if err != nil {
		return nil, err
	}
	p, err := b.place(s)
	if err != nil {
		return nil, err
	}
	node, err := b.find(ctx, s.Source)
	if err != nil {
		return nil, err
	}
	if s.FSType == "bind" {
		return bindNode(ctx, p, node, o)
	}
	b.protect.load(ctx, s.FSType)
	fresh, err := b.protect.prepare(ctx, node, wish)
	if err != nil {
		return nil, err
	}
	m, err := attach(ctx, p, s, func() error {
		return p.Mount(mount.Request{Source: fresh.node, FSType: s.FSType, Options: o})
	})
	if err != nil {
		return nil, undone(err, fresh.remove())
	}
	if fresh.device == nil {
		return m, nil
	}
	return protected{m, fresh.device}, nil
}

// find waits for the disk that the source names.
func (b block) find(ctx context.Context, source string) (node string, err error) {
	m, err := b.parse(source)
	if err != nil {
		return "", err
	}
	if b.devices == nil {
		return "", fmt.Errorf("no way to find devices: %w", errdefs.ErrNotImplemented)
	}
	b.load(ctx)
	node, err = b.devices.Wait(ctx, m)
	if err != nil {
		return "", err
	}
	_, _, err = device.BlockNumber(node)
	return node, err
}

// check reads what is asked for beyond a mount. What is not known is refused:
// it may be protection, and mounting without it would show the data to the
// host.
func (b block) check(s Storage) (wish, error) {
	if err := oneOf(s, blockTypes...); err != nil {
		return wish{}, err
	}
	for _, w := range mount.SplitOptions(s.Options) {
		if strings.HasPrefix(w, "X-kata.") {
			return wish{}, fmt.Errorf("mount option %.80q is for layers of %s: %w", w, layeredDriver, errdefs.ErrInvalidArgument)
		}
	}
	w, err := parseWish(s)
	if err != nil {
		return wish{}, err
	}
	return w, b.protect.allow(w)
}

// options allows the word bind with the type of that name, and only there. No
// disk brings devices into the guest.
func (b block) options(s Storage) (mount.Options, error) {
	if s.FSType != "bind" {
		return options(s, unix.MS_NODEV)
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
