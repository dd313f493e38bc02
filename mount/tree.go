package mount

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// maxDepth bounds the descriptors that a walk holds, one for each level. Trees
// may be the work of a container or of the host.
const maxDepth = 1000

// Walk calls visit for dir and everything below it, a directory before what it
// holds, each opened with O_PATH. It follows no symlink, though it visits
// them, and enters no mount below dir. f is valid during the call alone.
func Walk(dir *os.File, visit func(f *os.File, st *unix.Stat_t) error) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return fmt.Errorf("walk %q: %w", dir.Name(), err)
	}
	if err := visit(dir, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return err
	}
	return walkDir(dir, visit, maxDepth)
}

func walkDir(dir *os.File, visit func(*os.File, *unix.Stat_t) error, depth int) error {
	if depth == 0 {
		return fmt.Errorf("walk: tree is deeper than %d: %w", maxDepth, errdefs.ErrInvalidArgument)
	}
	return eachName(dir, func(name string) error {
		child, st, err := openChild(dir, name)
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return err
		}
		defer child.Close()
		if mounted, err := isMountRoot(int(child.Fd()), ""); err != nil || mounted {
			return err
		}
		if err := visit(child, st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return err
		}
		return walkDir(child, visit, depth-1)
	})
}

// RemoveStale removes the directories directly below root for which stale
// answers true, with all they hold. What a mount sits on stays, and so do
// sockets and every directory that holds such a thing: somebody uses them. A
// root that does not exist is fine.
func RemoveStale(root string, stale func(name string) bool) error {
	dir, err := openRoot(root)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	return eachName(dir, func(name string) error {
		if !stale(name) {
			return nil
		}
		return removeTree(dir, name, maxDepth)
	})
}

// RemoveAll removes what is at the place with all below it, under the same
// rules as RemoveStale.
func (p Place) RemoveAll() error {
	dir, name, err := p.parent()
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	return removeTree(dir, name, maxDepth)
}

// removeTree removes name below dir as far as it may.
func removeTree(dir *os.File, name string, depth int) error {
	child, st, err := openChild(dir, name)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer child.Close()
	if mounted, err := isMountRoot(int(child.Fd()), ""); err != nil || mounted {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFSOCK:
		return nil
	case unix.S_IFDIR:
		if depth == 0 {
			return fmt.Errorf("remove %q: tree is deeper than %d: %w", name, maxDepth, errdefs.ErrInvalidArgument)
		}
		if err := eachName(child, func(n string) error { return removeTree(child, n, depth-1) }); err != nil {
			return err
		}
		return tolerate(unix.Unlinkat(int(dir.Fd()), name, unix.AT_REMOVEDIR), name)
	default:
		return tolerate(unix.Unlinkat(int(dir.Fd()), name, 0), name)
	}
}

// tolerate passes over the refusals that mean "in use".
func tolerate(err error, name string) error {
	for _, fine := range []error{unix.ENOENT, unix.EBUSY, unix.ENOTEMPTY} {
		if errors.Is(err, fine) {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("remove %q: %w", name, err)
	}
	return nil
}

func openChild(dir *os.File, name string) (*os.File, *unix.Stat_t, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open %q: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("stat %q: %w", name, err)
	}
	return f, &st, nil
}

// eachName reads the directory that dir has open with O_PATH, a part at a
// time, so that a huge directory does not fill the memory.
func eachName(dir *os.File, do func(name string) error) error {
	fd, err := unix.Openat(int(dir.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("read directory %q: %w", dir.Name(), err)
	}
	list := os.NewFile(uintptr(fd), dir.Name())
	defer list.Close()
	for {
		names, err := list.Readdirnames(256)
		for _, name := range names {
			if err := do(name); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read directory %q: %w", dir.Name(), err)
		}
	}
}
