package storage

import (
	"context"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/mount"
)

// Visit calls f with the root directory of the storage that is attached at
// path, opened for reading, and keeps the storage attached until f returns. Any
// other path is ErrNotFound, whatever may be mounted there.
func (m *Manager) Visit(ctx context.Context, path string, f func(root *os.File) error) error {
	place, err := m.place(Storage{MountPoint: path})
	if err != nil {
		return err
	}
	p := m.find(place.Rel())
	if p == nil {
		return fmt.Errorf("no storage at %q: %w", clip(path), errdefs.ErrNotFound)
	}
	if err := p.lock(ctx); err != nil {
		return err
	}
	defer p.unlock()
	if p.gone || p.volume == nil {
		return fmt.Errorf("no storage at %q: %w", clip(path), errdefs.ErrNotFound)
	}
	root, err := openMounted(place)
	if err != nil {
		return err
	}
	defer root.Close()
	return f(root)
}

// openMounted makes sure that it opens the mount and not a directory below it.
func openMounted(place mount.Place) (*os.File, error) {
	if mounted, err := place.Mounted(); err != nil || !mounted {
		if err == nil {
			err = fmt.Errorf("nothing is mounted at %q: %w", place, errdefs.ErrFailedPrecondition)
		}
		return nil, err
	}
	at, err := place.Open()
	if err != nil {
		return nil, err
	}
	defer at.Close()
	fd, err := unix.Open(mount.FDPath(at), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %q: %w", place, err)
	}
	return os.NewFile(uintptr(fd), place.String()), nil
}
