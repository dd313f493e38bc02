package format

import (
	"archive/tar"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxID is the largest id there is; the one behind it means "leave alone" to
// the kernel.
const maxID = 1<<32 - 2

// maxXattrs bounds the extended attributes of one file.
const maxXattrs = 64 << 10

// meta is what an entry says about a file beside its contents.
type meta struct {
	uid, gid int
	mode     uint32 // permissions and the three bits above
	times    [2]unix.Timespec
	xattrs   []xattr
}

type xattr struct{ name, value string }

func metaOf(hdr *tar.Header) (*meta, error) {
	if hdr.Uid < 0 || hdr.Uid > maxID || hdr.Gid < 0 || hdr.Gid > maxID {
		return nil, bad(hdr.Name, "has an owner out of range")
	}
	access := hdr.AccessTime
	if access.IsZero() {
		access = hdr.ModTime
	}
	m := &meta{uid: hdr.Uid, gid: hdr.Gid, mode: uint32(hdr.Mode) & 0o7777,
		times: [2]unix.Timespec{timespec(access), timespec(hdr.ModTime)}}
	total := 0
	for key, value := range hdr.PAXRecords {
		name, ok := strings.CutPrefix(key, "SCHILY.xattr.")
		if !ok || !keptXattr(name) {
			continue
		}
		if total += len(name) + len(value); total > maxXattrs {
			return nil, bad(hdr.Name, "has more than %d bytes of attributes", maxXattrs)
		}
		m.xattrs = append(m.xattrs, xattr{name, value})
	}
	slices.SortFunc(m.xattrs, func(a, b xattr) int {
		if (a.name == capability) != (b.name == capability) {
			if a.name == capability {
				return 1
			}
			return -1
		}
		return cmp.Compare(a.name, b.name)
	})
	return m, nil
}

const capability = "security.capability"

// keptXattr chooses the attributes that an image may bring. Not trusted.*: an
// image could forge overlayfs's own. Not the labels of security modules, which
// mean nothing in this guest.
func keptXattr(name string) bool {
	return name == capability || len(name) > len("user.") && len(name) <= maxPart &&
		(strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "system.posix_acl_"))
}

func timespec(t time.Time) unix.Timespec {
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}

// apply sets owner, attributes and mode of an open file. The order matters:
// the kernel drops capabilities and setuid bits when the owner changes.
func (m *meta) apply(fd int, path string) error {
	if err := unix.Fchown(fd, m.uid, m.gid); err != nil {
		return fmt.Errorf("set owner of %.200q: %w", path, err)
	}
	for _, x := range m.xattrs {
		err := unix.Fsetxattr(fd, x.name, []byte(x.value), 0)
		if errors.Is(err, unix.ENOTSUP) && x.name != capability {
			continue // the file system has no such attributes
		}
		if err != nil {
			return fmt.Errorf("set attribute %.60q of %.200q: %w", x.name, path, err)
		}
	}
	if err := unix.Fchmod(fd, m.mode); err != nil {
		return fmt.Errorf("set mode of %.200q: %w", path, err)
	}
	return nil
}

// applyAt is apply for what cannot be opened: symlinks, which have no mode, and
// nodes. The name was made by us just now and is no symlink in the latter case.
func (m *meta) applyAt(at int, base, path string, mode bool) error {
	err := unix.Fchownat(at, base, m.uid, m.gid, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && mode {
		err = unix.Fchmodat(at, base, m.mode, 0)
	}
	if err == nil {
		err = unix.UtimesNanoAt(at, base, m.times[:], unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != nil {
		return fmt.Errorf("set owner, mode and times of %.200q: %w", path, err)
	}
	return nil
}

// futimens sets the times of an open file.
func futimens(fd int, ts [2]unix.Timespec) error {
	return unix.UtimesNanoAt(fd, "", ts[:], unix.AT_EMPTY_PATH)
}
