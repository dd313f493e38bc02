package storage

import (
	"context"
	"fmt"
	"os"
	"strconv"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/mount"
)

// local makes a directory: an emptyDir on the guest's own disk or memory.
// Options are mode=OCTAL and fsgid=N; source and type mean nothing. It stays
// until the sandbox ends.
type local struct{ ground }

// Attach implements Handler.
func (l local) Attach(ctx context.Context, _ string, s Storage) (Volume, error) {
	mode, err := modeOption(s)
	if err != nil {
		return nil, err
	}
	gid, hasGroup, err := groupOption(s)
	if err != nil {
		return nil, err
	}
	p, err := l.place(s)
	if err != nil {
		return nil, err
	}
	m, err := attach(ctx, p, s, func() error {
		if hasGroup {
			if err := setGroup(p, gid); err != nil {
				return err
			}
			mode |= unix.S_ISGID
		}
		return setMode(p, mode)
	})
	if err != nil {
		return nil, err
	}
	return directory{m}, nil
}

// directory is a Volume that is no mount.
type directory struct{ mounted }

func (directory) keep() {}

// Detach removes the directory with its content, if it was made for this
// storage.
func (d directory) Detach(context.Context) error {
	if !d.made {
		return nil
	}
	return d.place.RemoveAll()
}

func setMode(p mount.Place, mode uint32) error {
	dir, err := p.Open()
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := chmod(dir, mode); err != nil {
		return fmt.Errorf("set mode of %q: %w", p, &os.PathError{Op: "chmod", Path: p.String(), Err: err})
	}
	return nil
}

// modeOption reads the word mode=OCTAL; without it a directory is like any
// other.
func modeOption(s Storage) (uint32, error) {
	text, ok := optionValue(s, "mode")
	if !ok {
		return 0o755, nil
	}
	n, err := strconv.ParseUint(text, 8, 12)
	if err != nil {
		return 0, fmt.Errorf("mount option mode=%.20q is no octal mode: %w", text, errdefs.ErrInvalidArgument)
	}
	return uint32(n), nil
}
