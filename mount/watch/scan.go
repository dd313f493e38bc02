package watch

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// A tree holds entries by their path below the root, which is "".
type tree map[string]entry

// entry is what tells whether something changed.
type entry struct {
	mode, uid, gid uint32
	size           int64
	mtime, ctime   unix.Timespec
	link           string // where a symlink points to
}

func (e entry) kind() uint32 { return e.mode & unix.S_IFMT }

// scan lists what root has open, within the limits. Devices, sockets and pipes
// are passed over: nobody reads configuration from them.
func scan(root *os.File) (tree, error) {
	t := tree{}
	left := int64(MaxSize)
	if err := t.add(root, "", &left); err != nil {
		return nil, err
	}
	return t, nil
}

// add notes what f has open with O_PATH, and what is in it. left is how many
// bytes the rest may have.
func (t tree) add(f *os.File, name string, left *int64) error {
	e, err := look(f)
	if err != nil {
		return err
	}
	switch e.kind() {
	case unix.S_IFREG, unix.S_IFLNK:
		*left -= e.size
	case unix.S_IFDIR:
		e.size = 0 // says nothing about the content
	default:
		return nil
	}
	if len(t) == MaxEntries || *left < 0 {
		return ErrTooLarge
	}
	t[name] = e
	if e.kind() != unix.S_IFDIR {
		return nil
	}
	// What changes a directory's times shows in its content.
	e.mtime, e.ctime = unix.Timespec{}, unix.Timespec{}
	t[name] = e
	names, err := list(f)
	if err != nil {
		return err
	}
	for _, n := range names {
		child, err := openBelow(f, n, unix.O_PATH)
		if err != nil {
			return err
		}
		err = t.add(child, path.Join(name, n), left)
		child.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// dangling reports whether a symlink leads to a name in the tree that is not
// there. One that leads over another symlink is left to that one.
func (t tree) dangling() bool {
	for rel, e := range t {
		if e.kind() != unix.S_IFLNK || rel == "" || path.IsAbs(e.link) {
			continue
		}
		to := path.Join(path.Dir(rel), e.link)
		if _, ok := t[to]; !ok && to != "." && filepath.IsLocal(to) && !t.overLink(to) {
			return true
		}
	}
	return false
}

// overLink reports whether a directory on the way to rel is a symlink.
func (t tree) overLink(rel string) bool {
	for dir := path.Dir(rel); dir != "."; dir = path.Dir(dir) {
		if t[dir].kind() == unix.S_IFLNK {
			return true
		}
	}
	return false
}

// look describes what f has open.
func look(f *os.File) (entry, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return entry{}, fmt.Errorf("stat: %w", err)
	}
	e := entry{mode: st.Mode, uid: st.Uid, gid: st.Gid, size: st.Size, mtime: st.Mtim, ctime: st.Ctim}
	if e.kind() == unix.S_IFLNK {
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(int(f.Fd()), "", buf)
		if err != nil {
			return entry{}, fmt.Errorf("read link: %w", err)
		}
		e.link = string(buf[:n])
	}
	return e, nil
}

// list reads the names in a directory, one more than a tree may have at most.
func list(dir *os.File) ([]string, error) {
	f, err := openBelow(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(MaxEntries + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read directory: %w", err)
	}
	if len(names) > MaxEntries {
		return nil, ErrTooLarge
	}
	return names, nil
}

// openBelow opens a path below dir. Neither symlinks nor mounts are in the way.
func openBelow(dir *os.File, rel string, flags uint64) (*os.File, error) {
	how := unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC | unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	for {
		fd, err := unix.Openat2(int(dir.Fd()), rel, &how)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
		case errors.Is(err, unix.ELOOP), errors.Is(err, unix.EXDEV):
			return nil, fmt.Errorf("open %q: a symlink or mount is in the way: %w", rel, errdefs.ErrPermissionDenied)
		case err != nil:
			return nil, fmt.Errorf("open %q: %w", rel, err)
		default:
			return os.NewFile(uintptr(fd), rel), nil
		}
	}
}
