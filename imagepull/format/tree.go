package format

import (
	"container/list"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// maxOpen bounds the directories held open.
const maxOpen = 256

// maxImplied bounds the directories that a layer uses without describing them.
const maxImplied = 1 << 16

// tree is the directory that a layer is unpacked into. Every path is resolved
// from the top by the kernel, which follows no symlink and leaves the top in no
// way, and everything is then done relative to the directory found.
type tree struct {
	top     int
	open    map[string]*list.Element // of *opened
	recent  list.List                // last used in front
	implied map[string]bool
}

type opened struct {
	path string
	fd   int
}

func newTree(dir string) (*tree, error) {
	top, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	return &tree{top: top, open: map[string]*list.Element{}, implied: map[string]bool{".": true}}, nil
}

func (t *tree) close() {
	t.forget(".")
	unix.Close(t.top)
}

// below opens a path that need not be a directory.
func (t *tree) below(path string, flags uint64) (int, error) {
	how := unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC | unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(t.top, path, &how)
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// dir returns a descriptor of an existing directory, which the tree keeps.
func (t *tree) dir(path string) (int, error) {
	if path == "." {
		return t.top, nil
	}
	if e, ok := t.open[path]; ok {
		t.recent.MoveToFront(e)
		return e.Value.(*opened).fd, nil
	}
	fd, err := t.below(path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return -1, err
	}
	if t.recent.Len() == maxOpen {
		t.drop(t.recent.Back())
	}
	t.open[path] = t.recent.PushFront(&opened{path, fd})
	return fd, nil
}

func (t *tree) drop(e *list.Element) {
	o := t.recent.Remove(e).(*opened)
	delete(t.open, o.path)
	unix.Close(o.fd)
}

// forget lets go of path and everything below: it is about to be removed.
func (t *tree) forget(path string) {
	inside := func(p string) bool { return path == "." || p == path || strings.HasPrefix(p, path+"/") }
	for p, e := range t.open {
		if inside(p) {
			t.drop(e)
		}
	}
	for p := range t.implied {
		if p != "." && inside(p) {
			delete(t.implied, p)
		}
	}
}

// parent returns the directory that is to hold path, made if it is missing.
func (t *tree) parent(path string) (fd int, base string, err error) {
	dir, base := split(path)
	fd, err = t.makeDirs(dir)
	switch {
	case errors.Is(err, unix.ELOOP):
		err = bad(path, "lies behind a symlink")
	case errors.Is(err, unix.ENOTDIR):
		err = bad(path, "lies in something that is no directory")
	case err != nil:
		err = fmt.Errorf("make directory %.200q: %w", dir, err)
	}
	return fd, base, err
}

func (t *tree) makeDirs(dir string) (int, error) {
	fd, err := t.dir(dir)
	if !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	up, base := split(dir)
	fd, err = t.makeDirs(up)
	if err != nil {
		return -1, err
	}
	if err := unix.Mkdirat(fd, base, 0o755); err != nil {
		return -1, err
	}
	if len(t.implied) == maxImplied {
		return -1, bad(dir, "is one of more than %d directories without an entry", maxImplied)
	}
	t.implied[dir] = true
	return t.dir(dir)
}

// mode returns the file mode with type of a name in a directory, or 0 when
// there is nothing. whiteout is true for overlayfs's mark of a deletion.
func modeAt(fd int, base string) (mode uint32, whiteout bool, err error) {
	var st unix.Stat_t
	err = unix.Fstatat(fd, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return 0, false, nil
	}
	return st.Mode, st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0, err
}

// clear removes what is at path, whatever it is. whiteout tells that it was the
// mark of a deletion.
func (t *tree) clear(fd int, base, path string) (whiteout bool, err error) {
	mode, whiteout, err := modeAt(fd, base)
	switch {
	case err != nil || mode == 0:
		return whiteout, err
	case mode&unix.S_IFMT != unix.S_IFDIR:
		return whiteout, unix.Unlinkat(fd, base, 0)
	}
	t.forget(path)
	return false, removeTree(fd, base)
}

// removeTree removes a directory with all it holds. Its depth is bounded by
// that of the names in the archive.
func removeTree(at int, base string) error {
	fd, err := unix.Openat(at, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), base)
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		err := unix.Unlinkat(fd, name, 0)
		if errors.Is(err, unix.EISDIR) {
			err = removeTree(fd, name)
		}
		if err != nil {
			return err
		}
	}
	return unix.Unlinkat(at, base, unix.AT_REMOVEDIR)
}
