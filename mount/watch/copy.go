package watch

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/mount"
)

// copier makes single entries in a target like those of a source. Both are open
// with O_PATH.
type copier struct{ source, target *os.File }

// errOtherKind is the answer of a step to an entry that is not its business.
var errOtherKind = errors.New("entry of another kind")

// Modes that are carried over: no file becomes setuid by the host's word.
const (
	fileMode = 0o777
	dirMode  = 0o3777
)

// newName is what a file or link is called until it is complete.
const newName = ".coffer-new"

func (c copier) directory(rel string, e entry) error {
	if e.kind() != unix.S_IFDIR {
		return errOtherKind
	}
	if rel == "" {
		return own(c.target, e, dirMode)
	}
	parent, err := c.parent(rel)
	if err != nil {
		return err
	}
	defer parent.Close()
	if err := unix.Mkdirat(int(parent.Fd()), path.Base(rel), 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	f, err := openBelow(parent, path.Base(rel), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer f.Close()
	return own(f, e, dirMode)
}

func (c copier) file(rel string, e entry) error {
	if e.kind() != unix.S_IFREG {
		return errOtherKind
	}
	if rel == "" {
		return c.inPlace(e)
	}
	from, err := openBelow(c.source, rel, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer from.Close()
	return c.replace(rel, func(parent *os.File) error {
		to, err := openNew(parent)
		if err != nil {
			return err
		}
		return errors.Join(pour(to, from, e), to.Close())
	})
}

// inPlace writes to the one file that is the whole target.
func (c copier) inPlace(e entry) error {
	from, err := os.OpenFile(mount.FDPath(c.source), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(mount.FDPath(c.target), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	return errors.Join(pour(to, from, e), to.Close())
}

// pour copies what the entry promised, and no more: the file may grow.
func pour(to, from *os.File, e entry) error {
	now, err := look(from)
	if err != nil {
		return err
	}
	if now.kind() != unix.S_IFREG || now.size != e.size {
		return fmt.Errorf("it changes while it is read: %w", errdefs.ErrUnavailable)
	}
	if _, err := io.CopyN(to, from, e.size); err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	return own(to, e, fileMode)
}

func (c copier) symlink(rel string, e entry) error {
	if e.kind() != unix.S_IFLNK {
		return errOtherKind
	}
	if rel == "" {
		return fmt.Errorf("the root is a symlink: %w", errdefs.ErrPermissionDenied)
	}
	return c.replace(rel, func(parent *os.File) error {
		if err := unix.Symlinkat(e.link, int(parent.Fd()), newName); err != nil {
			return err
		}
		return unix.Fchownat(int(parent.Fd()), newName, int(e.uid), int(e.gid), unix.AT_SYMLINK_NOFOLLOW)
	})
}

// replace lets do make something new next to rel, which then takes its name.
func (c copier) replace(rel string, do func(parent *os.File) error) error {
	parent, err := c.parent(rel)
	if err != nil {
		return err
	}
	defer parent.Close()
	fd := int(parent.Fd())
	if err := unix.Unlinkat(fd, newName, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	if err := do(parent); err != nil {
		unix.Unlinkat(fd, newName, 0)
		return err
	}
	return unix.Renameat(fd, newName, fd, path.Base(rel))
}

// remove takes away one entry that has no children.
func (c copier) remove(rel string, e entry) error {
	parent, err := c.parent(rel)
	if err != nil {
		return err
	}
	defer parent.Close()
	flags := 0
	if e.kind() == unix.S_IFDIR {
		flags = unix.AT_REMOVEDIR
	}
	if err := unix.Unlinkat(int(parent.Fd()), path.Base(rel), flags); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

// parent opens the target's directory that holds rel.
func (c copier) parent(rel string) (*os.File, error) {
	return openBelow(c.target, path.Dir(rel), unix.O_PATH|unix.O_DIRECTORY)
}

func openNew(parent *os.File) (*os.File, error) {
	fd, err := unix.Openat(int(parent.Fd()), newName, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), newName), nil
}

// own sets owner and mode; chown clears bits of the mode, so it comes first.
func own(f *os.File, e entry, mask uint32) error {
	if err := unix.Fchownat(int(f.Fd()), "", int(e.uid), int(e.gid), unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	return unix.Chmod(mount.FDPath(f), e.mode&mask)
}
