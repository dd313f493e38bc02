package storage

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/mount"
)

// Bits that a group needs on what it owns. A directory is entered too, and
// setgid makes new files in it belong to the group.
const (
	fileBits = 0o660
	dirBits  = unix.S_ISGID | 0o770
)

// own gives what is mounted at p to the group that s names, if it names one. A
// read-only mount stays as it is, as Kubernetes has it for such volumes.
func own(p mount.Place, s Storage) error {
	if s.FSGroup == nil {
		return nil
	}
	dir, err := p.Open()
	if err != nil {
		return err
	}
	defer dir.Close()
	if leave, err := leaveAsIs(dir, s.FSGroup); err != nil || leave {
		return err
	}
	err = mount.Walk(dir, func(f *os.File, st *unix.Stat_t) error {
		return giveTo(f, st, s.FSGroup.GroupID)
	})
	if err != nil {
		return fmt.Errorf("set group of %q: %w", p, err)
	}
	return nil
}

func leaveAsIs(dir *os.File, g *FSGroup) (bool, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &fs); err != nil {
		return false, err
	}
	if fs.Flags&unix.ST_RDONLY != 0 {
		return true, nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return false, err
	}
	return g.OnRootMismatch && st.Gid == g.GroupID && st.Mode&dirBits == dirBits, nil
}

// giveTo changes one file by its descriptor. Symlinks are left alone. chown
// clears setuid and setgid bits, so the mode is set after it.
func giveTo(f *os.File, st *unix.Stat_t, gid uint32) error {
	bits := uint32(fileBits)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		return nil
	case unix.S_IFDIR:
		bits = dirBits
	}
	if err := unix.Fchownat(int(f.Fd()), "", -1, int(gid), unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	return chmod(f, st.Mode&0o7777|bits)
}

// chmod works on a descriptor opened with O_PATH, which fchmod(2) refuses.
func chmod(f *os.File, mode uint32) error { return unix.Chmod(mount.FDPath(f), mode) }

// optionValue returns the value of the word key=VALUE.
func optionValue(s Storage, key string) (string, bool) {
	for _, w := range mount.SplitOptions(s.Options) {
		if v, ok := strings.CutPrefix(w, key+"="); ok {
			return v, true
		}
	}
	return "", false
}

// groupOption reads the word fsgid=N, by which shims pass the group of an
// emptyDir.
func groupOption(s Storage) (gid uint32, ok bool, err error) {
	text, ok := optionValue(s, "fsgid")
	if !ok {
		return 0, false, nil
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n == 1<<32-1 {
		return 0, false, fmt.Errorf("mount option fsgid=%.20q is no group: %w", text, errdefs.ErrInvalidArgument)
	}
	return uint32(n), true, nil
}
