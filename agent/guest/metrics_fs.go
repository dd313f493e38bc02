package guest

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// fsMount is what a line of mountinfo says about a mounted file system
// (proc_pid_mountinfo(5)).
type fsMount struct {
	device     string // major:minor
	mountPoint string
	fstype     string
	source     string
	readOnly   bool
}

// filesystemMetrics adds space and inodes of writable file systems on disks and
// of overlays, each once whatever the number of its mounts.
func (m Machine) filesystemMetrics(e *Exposition) {
	type usage struct {
		fsMount
		st unix.Statfs_t
	}
	var all []usage
	seen := map[string]bool{}
	for _, l := range m.lines("self/mountinfo") {
		fs, ok := parseMountinfo(l)
		if !ok || fs.readOnly || seen[fs.device] || len(all) == maxLabelled ||
			!slices.Contains([]string{"ext4", "xfs", "btrfs", "vfat", "overlay"}, fs.fstype) {
			continue
		}
		seen[fs.device] = true
		u := usage{fsMount: fs}
		if unix.Statfs(fs.mountPoint, &u.st) == nil {
			all = append(all, u)
		}
	}
	e.Gauge("kata_guest_filesystem_bytes", "Guest filesystem space usage in bytes.")
	for _, u := range all {
		size := float64(u.st.Bsize)
		threeItems(e, u.fsMount, float64(u.st.Blocks)*size, float64(u.st.Bfree)*size)
	}
	e.Gauge("kata_guest_filesystem_inodes", "Guest filesystem inode usage.")
	for _, u := range all {
		threeItems(e, u.fsMount, float64(u.st.Files), float64(u.st.Ffree))
	}
}

func threeItems(e *Exposition, fs fsMount, total, free float64) {
	labels := []string{"mount", fs.mountPoint, "device", filepath.Base(fs.source), "item"}
	e.Sample(total, append(labels, "total")...)
	e.Sample(max(total-free, 0), append(labels, "used")...)
	e.Sample(free, append(labels, "available")...)
}

// parseMountinfo reads
//
//	36 35 98:0 /root /mount rw,noatime shared:1 - ext4 /dev/vda rw,errors=continue
func parseMountinfo(line string) (fsMount, bool) {
	left, right, ok := strings.Cut(line, " - ")
	l, r := strings.Fields(left), strings.Fields(right)
	if !ok || len(l) < 6 || len(r) < 3 {
		return fsMount{}, false
	}
	return fsMount{
		device:     l[2],
		mountPoint: unescapeOctal(l[4]),
		fstype:     r[0],
		source:     unescapeOctal(r[1]),
		readOnly:   slices.Contains(strings.Split(r[2], ","), "ro"),
	}, true
}

// unescapeOctal turns \040 and its kind, which the kernel writes for space, tab,
// newline and backslash, back into the character.
func unescapeOctal(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(v))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
