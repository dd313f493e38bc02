package doctor

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Room below which a guest gets into trouble. Layers are kept unpacked.
const (
	minMemory = 64 << 20
	minRun    = 16 << 20
	minImages = 256 << 20
	fewInodes = 1000
)

// Space is what a file system has.
type Space struct {
	Size, Free uint64 // bytes
	Inodes     uint64 // free; 0 where they are not counted
	Tmpfs      bool
}

func statfs(path string) (Space, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return Space{}, err
	}
	size := uint64(s.Bsize)
	return Space{Size: s.Blocks * size, Free: s.Bavail * size, Inodes: s.Ffree, Tmpfs: s.Type == unix.TMPFS_MAGIC}, nil
}

// space looks at the file system of a directory, or of what will hold it.
func (g Guest) space(dir string, least uint64) Finding {
	s, err := g.Statfs(g.path(dir))
	for at := dir; err != nil && at != "/"; {
		at = filepath.Dir(at)
		s, err = g.Statfs(g.path(at))
	}
	if err != nil {
		return bad("mount a file system there", "%s cannot be examined", dir)
	}
	kind := "disk"
	if s.Tmpfs {
		kind = "memory"
	}
	text := mib(s.Free) + " of " + mib(s.Size) + " free, in " + kind
	switch {
	case s.Free < least/16:
		return bad("give the guest more memory or a disk for it", "%s", text)
	case s.Free < least:
		return warn("give the guest more memory or a disk for it: images need about "+mib(least)+" and more", "%s", text)
	case s.Inodes != 0 && s.Inodes < fewInodes:
		return warn("give the file system more inodes", "%s, and %d inodes", text, s.Inodes)
	}
	return good("%s", text)
}

func mib(n uint64) string { return strconv.FormatUint(n>>20, 10) + " MiB" }

func (g Guest) memory() Finding {
	text, err := g.read("/proc/meminfo")
	if err != nil {
		return bad("mount /proc", "the kernel does not tell how much there is")
	}
	total, available := field(text, "MemTotal:"), field(text, "MemAvailable:")
	sizes := mib(available) + " of " + mib(total) + " available"
	switch {
	case available < minMemory/4:
		return bad("give the guest more memory", "%s", sizes)
	case available < minMemory:
		return warn("give the guest more memory: a pull alone may take 192 MiB", "%s", sizes)
	case field(text, "SwapTotal:") > 0:
		return warn("on a TEE use no swap: the host reads and changes what is there, unless it is encrypted", "%s, and swap is on", sizes)
	}
	return good("%s", sizes)
}

// field is a number of /proc/meminfo in bytes, 0 without.
func field(text, name string) uint64 {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) >= 2 && words[0] == name {
			n, _ := strconv.ParseUint(words[1], 10, 53) // 0 where it is none
			return n << 10
		}
	}
	return 0
}

func (g Guest) cgroups() Finding {
	text, err := g.read("/sys/fs/cgroup/cgroup.controllers")
	if err != nil {
		if g.exists("/sys/fs/cgroup/memory") && g.exists("/sys/fs/cgroup/devices") {
			return warn("boot with cgroup v2: the kernel command line of some images switches it off", "version 1")
		}
		return bad("mount cgroup2 at /sys/fs/cgroup", "none is mounted: containers cannot be limited")
	}
	var lacks []string
	for _, c := range []string{"cpu", "cpuset", "io", "memory", "pids", "hugetlb"} {
		if !slices.Contains(strings.Fields(text), c) {
			lacks = append(lacks, c)
		}
	}
	switch {
	case slices.Contains(lacks, "cpu") || slices.Contains(lacks, "memory") || slices.Contains(lacks, "pids"):
		return bad("build the kernel with them, or leave off cgroup_disable", "version 2 without %s", strings.Join(lacks, " "))
	case len(lacks) > 0:
		return warn("containers that ask for such limits fail; build the kernel with them", "version 2 without %s", strings.Join(lacks, " "))
	}
	return good("version 2 with %s", strings.Join(strings.Fields(text), " "))
}
