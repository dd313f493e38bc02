package device

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Node is a device node of the guest.
type Node struct {
	Path         string // in the guest, and in a container that gets it
	Block        bool   // else it is a character device
	Major, Minor uint32
	Mode         os.FileMode // permission bits
	UID, GID     uint32
}

// ReadNode looks at the node with the given path below /dev. A symlink is not
// followed.
func (f *Finder) ReadNode(name string) (Node, error) {
	file := filepath.Join(or(f.Dev, "/dev"), name)
	var st unix.Stat_t
	if err := unix.Lstat(file, &st); err != nil {
		return Node{}, fmt.Errorf("stat %q: %w", file, err)
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFBLK && kind != unix.S_IFCHR {
		return Node{}, fmt.Errorf("%q is no device: %w", file, errdefs.ErrInvalidArgument)
	}
	return Node{
		Path: path.Join("/dev", name), Block: kind == unix.S_IFBLK,
		Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev),
		Mode: os.FileMode(st.Mode & 0o777), UID: st.Uid, GID: st.Gid,
	}, nil
}

// CharNodes returns the character devices in a directory below /dev, in the
// order of their names. A directory that does not exist holds none.
func (f *Finder) CharNodes(dir string) ([]Node, error) {
	entries, err := os.ReadDir(filepath.Join(or(f.Dev, "/dev"), dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	var out []Node
	for _, e := range entries {
		n, err := f.ReadNode(path.Join(dir, e.Name()))
		if err == nil && !n.Block {
			out = append(out, n)
		}
	}
	return out, nil
}
