package mount

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// MakeDir creates the directory and its parents where they are missing and
// opens it like Open. Parents may lie on a file system where nothing can be
// created; that is no error as long as the directory exists.
func (p Place) MakeDir(mode uint32) (*os.File, error) {
	parent, name, err := p.makeParent(mode)
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	return p.step(parent, name, mode, 0)
}

// MakeFile creates an empty file, for a bind of something that is no
// directory, and opens it like Open. An existing file is left as it is.
func (p Place) MakeFile() (*os.File, error) {
	parent, name, err := p.makeParent(0o755)
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	fd, err := unix.Openat(int(parent.Fd()), name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err == nil {
		unix.Close(fd)
	}
	f, openErr := p.openAt(parent, name, 0)
	if openErr != nil && err != nil {
		return nil, fmt.Errorf("create %q: %w", p, err)
	}
	return f, openErr
}

// step makes one directory below dir, if it is missing, and opens it.
func (p Place) step(dir *os.File, name string, mode uint32, resolve uint64) (*os.File, error) {
	mkErr := unix.Mkdirat(int(dir.Fd()), name, mode)
	f, err := p.openAt(dir, name, resolve)
	if err != nil {
		// EROFS, EPERM or ENOSYS tell more than the ENOENT that follows.
		if mkErr != nil && !errors.Is(mkErr, unix.EEXIST) {
			err = mkErr
		}
		return nil, fmt.Errorf("create %q: %w", p, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		f.Close()
		return nil, fmt.Errorf("create %q: %q: %w", p, name, unix.ENOTDIR)
	}
	return f, nil
}

func (p Place) makeParent(mode uint32) (*os.File, string, error) {
	dir, err := openRoot(p.root)
	if err != nil {
		return nil, "", err
	}
	parts := strings.Split(p.rel, "/")
	for _, name := range parts[:len(parts)-1] {
		next, err := p.step(dir, name, mode, p.onTheWay())
		dir.Close()
		if err != nil {
			return nil, "", err
		}
		dir = next
	}
	return dir, parts[len(parts)-1], nil
}
