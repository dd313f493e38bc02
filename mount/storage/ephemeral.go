package storage

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/mount"
)

// ephemeral mounts memory: the pod's /dev/shm, emptyDirs with medium Memory
// (tmpfs) and HugePages (hugetlbfs). Options are those of the file system, and
// fsgid=N. The source is a label. It stays until the sandbox ends.
type ephemeral struct {
	ground
	sys string // /sys

	pages sync.Mutex // guards the read and write of a pool's page count
}

// Attach implements Handler.
func (e *ephemeral) Attach(ctx context.Context, _ string, s Storage) (Volume, error) {
	if err := oneOf(s, "tmpfs", "hugetlbfs"); err != nil {
		return nil, err
	}
	o, err := options(s, unix.MS_NOSUID|unix.MS_NODEV)
	if err != nil {
		return nil, err
	}
	gid, hasGroup, err := groupOption(s)
	if err != nil {
		return nil, err
	}
	p, err := e.place(s)
	if err != nil {
		return nil, err
	}
	giveBack := func() error { return nil }
	if s.FSType == "hugetlbfs" {
		if giveBack, err = e.reserve(s); err != nil {
			return nil, err
		}
	}
	m, err := attach(ctx, p, s, func() error {
		if err := p.Mount(mount.Request{Source: s.Source, FSType: s.FSType, Options: o}); err != nil || !hasGroup {
			return badOption(err)
		}
		if err := setGroup(p, gid); err != nil {
			return undone(err, p.Unmount())
		}
		return nil
	})
	if err != nil {
		return nil, undone(err, giveBack())
	}
	return memory{kept{m}, giveBack}, nil
}

// memory is a mount whose pages go back after it.
type memory struct {
	kept
	giveBack func() error
}

// Detach implements Volume.
func (m memory) Detach(ctx context.Context) error {
	if err := m.kept.Detach(ctx); err != nil {
		return err
	}
	return m.giveBack()
}

// setGroup gives the directory at p to gid, and what is made in it later.
func setGroup(p mount.Place, gid uint32) error {
	dir, err := p.Open()
	if err != nil {
		return err
	}
	defer dir.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return err
	}
	if err := giveTo(dir, &st, gid); err != nil {
		return fmt.Errorf("set group of %q: %w", p, err)
	}
	return nil
}

// remount applies new options, such as size=N, to the mount at p. The kernel
// takes a remount as the full list of flags, so those that protect are asked
// for again: an update may change sizes but not loosen the mount.
func remount(p mount.Place, s Storage) error {
	o, err := mount.ParseOptions(s.Options)
	if err != nil {
		return err
	}
	dir, err := p.Open()
	if err != nil {
		return err
	}
	var now unix.Statfs_t
	err = unix.Fstatfs(int(dir.Fd()), &now)
	dir.Close()
	if err != nil {
		return fmt.Errorf("read flags of %q: %w", p, err)
	}
	keep := []struct {
		has, flag uintptr
	}{{unix.ST_NOSUID, unix.MS_NOSUID}, {unix.ST_NODEV, unix.MS_NODEV}, {unix.ST_NOEXEC, unix.MS_NOEXEC}, {unix.ST_RDONLY, unix.MS_RDONLY}}
	for _, k := range keep {
		if uintptr(now.Flags)&k.has != 0 {
			o.Flags |= k.flag
		}
	}
	o.Flags = o.Flags&^(unix.MS_BIND|unix.MS_REC|unix.MS_MOVE) | unix.MS_REMOUNT
	o.Propagation = 0
	return badOption(p.Mount(mount.Request{Source: s.Source, FSType: s.FSType, Options: o}))
}

// badOption gives the kernel's word for an option it does not take, such as a
// negative size, its class: the mounts of this driver have nothing else that
// could be wrong with them.
func badOption(err error) error {
	if errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("options: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return err
}
