package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/mount"
)

// mounted is the Volume of one mount at a place.
type mounted struct {
	place mount.Place
	made  bool // we created the mount point
}

// Path implements Volume.
func (m mounted) Path() string { return m.place.String() }

// Detach implements Volume. It leaves a mount point alone that was there
// before, because on a shared file system it belongs to the host.
func (m mounted) Detach(ctx context.Context) error {
	if err := m.place.Unmount(); err != nil {
		return err
	}
	m.cleanUp(ctx)
	return nil
}

func (m mounted) cleanUp(ctx context.Context) {
	if !m.made {
		return
	}
	if err := m.place.Remove(); err != nil {
		slog.WarnContext(ctx, "mount point stays", "path", m.place.String(), "error", err)
	}
}

// keeper is a Volume that belongs to the pod: it stays when the last container
// that names it goes, since an emptyDir keeps its data over a restart.
type keeper interface{ keep() }

// kept makes a mount a keeper.
type kept struct{ mounted }

func (kept) keep() {}

// prepare makes sure that the mount point exists, and notes whether we made it.
func prepare(p mount.Place, create func() (*os.File, error)) (mounted, error) {
	there, err := p.Open()
	if err == nil {
		there.Close()
	}
	f, makeErr := create()
	if makeErr != nil {
		return mounted{}, makeErr
	}
	f.Close()
	return mounted{place: p, made: errors.Is(err, unix.ENOENT)}, nil
}

// attach creates the directory at the place of s, runs do to mount there, and
// sees to the ownership. When a step fails nothing is left.
func attach(ctx context.Context, p mount.Place, s Storage, do func() error) (mounted, error) {
	m, err := prepare(p, func() (*os.File, error) { return p.MakeDir(0o755) })
	if err != nil {
		return mounted{}, err
	}
	if err := do(); err != nil {
		m.cleanUp(ctx)
		return mounted{}, err
	}
	if err := own(p, s); err != nil {
		return mounted{}, undone(err, m.Detach(ctx))
	}
	return m, nil
}

// undone joins a failure with that of taking it back.
func undone(cause, undo error) error {
	if undo == nil {
		return cause
	}
	return &UndoError{Cause: cause, Undo: undo}
}

// options reads the mount options of a new mount, which gets the forced flags
// in any case. Words that would act on some other mount instead, that name
// further devices, or that ask for the opposite of a forced flag are refused.
func options(s Storage, forced uintptr) (mount.Options, error) {
	o, err := mount.ParseOptions(s.Options)
	if err != nil {
		return o, err
	}
	if bad := o.Flags & (unix.MS_REMOUNT | unix.MS_BIND | unix.MS_MOVE); bad != 0 {
		return o, fmt.Errorf("mount option %q does not go with driver %s: %w", mount.FlagNames(bad), s.Driver, errdefs.ErrInvalidArgument)
	}
	for _, w := range mount.SplitOptions(s.Options) {
		key, _, _ := strings.Cut(w, "=")
		weakens := (key == "dev" && forced&unix.MS_NODEV != 0) || (key == "suid" && forced&unix.MS_NOSUID != 0)
		if weakens || slices.Contains(otherDevices, key) {
			return o, fmt.Errorf("mount option %.80q is not allowed for driver %s: %w", w, s.Driver, errdefs.ErrPermissionDenied)
		}
	}
	o.Flags |= forced
	return o, nil
}

// otherDevices are options of file systems that take a further device or file
// of the guest into the mount.
var otherDevices = []string{"device", "logdev", "rtdev", "journal_path", "journal_dev", "usrjquota", "grpjquota"}

// oneOf checks the file system type of s against those its driver mounts.
func oneOf(s Storage, types ...string) error {
	if slices.Contains(types, s.FSType) {
		return nil
	}
	return fmt.Errorf("driver %s does not mount file system type %q: %w", s.Driver, s.FSType, errdefs.ErrInvalidArgument)
}
