package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// A Place is a path below a root directory that is ours. The path may come
// from outside and other parties may change the directories on the way, for
// example through a shared file system. Each method therefore walks from the
// root by openat2 without following any symlink, and acts on what it opened.
// It holds no descriptor between calls.
type Place struct {
	root, rel string
	oneFS     bool
}

// At returns the place of path, which must be absolute, free of "." and ".."
// components, and lie strictly below root. One slash at the end is allowed.
func At(root, path string) (Place, error) {
	bad := func(why string) (Place, error) {
		return Place{}, fmt.Errorf("path %q %s: %w", clip(path, 256), why, errdefs.ErrInvalidArgument)
	}
	clean := filepath.Clean(path)
	switch {
	case len(path) >= unix.PathMax || strings.ContainsRune(path, 0):
		return bad("is too long or holds a zero byte")
	case !filepath.IsAbs(path):
		return bad("is not absolute")
	case clean != path && clean+"/" != path:
		return bad("is not in its plain form")
	}
	rel, err := filepath.Rel(root, clean)
	if err != nil || rel == "." || !filepath.IsLocal(rel) {
		return bad("is not below " + root)
	}
	return Place{root: root, rel: rel}, nil
}

// OnRootFS returns the same place, whose parents must all lie on the root's own
// file system. Whoever controls a file system mounted on the way could rename
// the directory that a mount sits on and so take the mount away.
func (p Place) OnRootFS() Place { p.oneFS = true; return p }

// String returns the absolute path.
func (p Place) String() string { return filepath.Join(p.root, p.rel) }

// Rel returns the path below the root.
func (p Place) Rel() string { return p.rel }

// Open opens the place itself with O_PATH: good for stat, for FDPath and as
// the start of a walk. The caller closes it.
func (p Place) Open() (*os.File, error) {
	dir, name, err := p.parent()
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return p.openAt(dir, name, 0)
}

// openAt opens rel below dir, with further RESOLVE_ bits.
func (p Place) openAt(dir *os.File, rel string, resolve uint64) (*os.File, error) {
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC | unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | resolve,
	}
	for {
		fd, err := unix.Openat2(int(dir.Fd()), rel, &how)
		// EAGAIN: a rename or a mount elsewhere raced with the walk.
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("open %q: %w", p, explain(err))
		}
		f := os.NewFile(uintptr(fd), p.String())
		if err := notSymlink(f); err != nil {
			f.Close()
			return nil, fmt.Errorf("open %q: %w", p, err)
		}
		return f, nil
	}
}

// onTheWay are the bits for every component but the last.
func (p Place) onTheWay() uint64 {
	if p.oneFS {
		return unix.RESOLVE_NO_XDEV
	}
	return 0
}

// notSymlink refuses a symlink itself, which O_PATH with O_NOFOLLOW opens.
func notSymlink(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return explain(unix.ELOOP)
	}
	return nil
}

// explain gives the two answers of openat2 that a hostile path earns a class.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.ELOOP):
		return fmt.Errorf("a symlink is in the way: %w", errdefs.ErrPermissionDenied)
	case errors.Is(err, unix.EXDEV):
		return fmt.Errorf("another mount is in the way: %w", errdefs.ErrPermissionDenied)
	}
	return err
}

// parent opens the directory that holds the place.
func (p Place) parent() (*os.File, string, error) {
	dir, name := filepath.Split(p.rel)
	root, err := openRoot(p.root)
	if err != nil || dir == "" {
		return root, name, err
	}
	defer root.Close()
	f, err := p.openAt(root, strings.TrimSuffix(dir, "/"), p.onTheWay())
	return f, name, err
}

// Mount mounts r on the place, which must exist.
func (p Place) Mount(r Request) error {
	return r.on(p.String(), func() (string, func(), error) {
		f, err := p.Open()
		if err != nil {
			return "", nil, err
		}
		return FDPath(f), func() { f.Close() }, nil
	})
}

// Mounted reports whether the place is the root of a mount. A place that does
// not exist is not mounted.
func (p Place) Mounted() (bool, error) {
	f, err := p.Open()
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	return isMountRoot(int(f.Fd()), "")
}

// Unmount detaches the mount on top of the place.
func (p Place) Unmount() error { return p.unmount(0) }

// UnmountLazy is Unmount for a place that killed processes may still use; see
// the function of the same name.
func (p Place) UnmountLazy() error { return p.unmount(unix.MNT_DETACH) }

// unmount goes by the parent's descriptor: one on the mount itself would keep
// it busy.
func (p Place) unmount(flags int) error {
	dir, name, err := p.parent()
	if err != nil {
		return err
	}
	defer dir.Close()
	return unmount(filepath.Join(FDPath(dir), name), p.String(), flags|unix.UMOUNT_NOFOLLOW)
}

// Remove removes the file or the empty directory at the place. What does not
// exist is fine. A mount point is EBUSY, a directory in use ENOTEMPTY.
func (p Place) Remove() error {
	dir, name, err := p.parent()
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	err = unix.Unlinkat(int(dir.Fd()), name, 0)
	if errors.Is(err, unix.EISDIR) {
		err = unix.Unlinkat(int(dir.Fd()), name, unix.AT_REMOVEDIR)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove %q: %w", p, err)
	}
	return nil
}

// FDPath names what f has open, whatever happens to its path meanwhile.
func FDPath(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

func openRoot(root string) (*os.File, error) {
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %q: %w", root, err)
	}
	return os.NewFile(uintptr(fd), root), nil
}

// isMountRoot asks statx(2) about name below dirfd, or dirfd itself when name
// is empty.
func isMountRoot(dirfd int, name string) (bool, error) {
	var st unix.Statx_t
	flags := unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	if err := unix.Statx(dirfd, name, flags, unix.STATX_TYPE, &st); err != nil {
		return false, err
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}
