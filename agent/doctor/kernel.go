package doctor

import (
	"bufio"
	"compress/gzip"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// option is a setting that the kernel was built with. Where the kernel does not
// say how it was built, a file that exists, or a line of /proc/filesystems,
// shows that it is there.
type option struct {
	name   string
	effect string // path, or fs: and the name of a file system
	needed bool   // no container runs without
	why    string
}

// options are those that the agent or its containers use.
func options() []option {
	return []option{
		{"CONFIG_NAMESPACES", "/proc/self/ns/pid", true, "containers"},
		{"CONFIG_CGROUPS", "/proc/self/cgroup", true, "containers"},
		{"CONFIG_SECCOMP_FILTER", "/proc/sys/kernel/seccomp/actions_avail", true, "containers with a seccomp profile"},
		{"CONFIG_OVERLAY_FS", "fs:overlay", true, "roots of containers"},
		{"CONFIG_TMPFS", "fs:tmpfs", true, "/run"},
		{"CONFIG_DEVTMPFS", "fs:devtmpfs", true, "/dev"},
		{"CONFIG_VSOCKETS", "/dev/vsock", false, "the way to the host"},
		{"CONFIG_VIRTIO_VSOCKETS", "/dev/vsock", false, "the way to the host"},
		{"CONFIG_CONFIGFS_FS", "fs:configfs", false, "evidence through configfs-tsm"},
		{"CONFIG_TSM_REPORTS", "/sys/kernel/config/tsm/report", false, "evidence through configfs-tsm"},
		{"CONFIG_DM_VERITY", "/sys/module/dm_verity", false, "verified layers"},
		{"CONFIG_DM_CRYPT", "/sys/module/dm_crypt", false, "encrypted scratch disks"},
		{"CONFIG_DM_INTEGRITY", "/sys/module/dm_integrity", false, "encrypted scratch disks"},
		{"CONFIG_EROFS_FS", "fs:erofs", false, "layers of erofs"},
		{"CONFIG_EXT4_FS", "fs:ext4", false, "scratch disks"},
	}
}

// maxConfig bounds the text; a distribution's has 300 KiB.
const maxConfig = 4 << 20

func (g Guest) kernel() Finding {
	version, err := g.Release()
	if err != nil {
		return bad("look whether /proc is mounted", "its version cannot be read")
	}
	config, source := g.kernelConfig(version)
	var lacks, misses []string
	needed := false
	for _, o := range options() {
		there := config[o.name]
		if config == nil {
			there = g.shows(o.effect)
		}
		if there {
			continue
		}
		if lacks = append(lacks, o.name); !slices.Contains(misses, o.why) {
			misses = append(misses, o.why)
		}
		needed = needed || o.needed
	}
	if len(lacks) == 0 {
		return good("Linux %s, all options by %s", version, source)
	}
	text := "Linux " + version + ", by " + source + " without " + strings.Join(lacks, " ")
	remedy := "build the kernel with them, or load the modules; they are for " + strings.Join(misses, ", ")
	if needed {
		return bad(remedy, "%s", text)
	}
	return warn(remedy, "%s", text)
}

// kernelConfig is nil where the kernel does not tell.
func (g Guest) kernelConfig(version string) (map[string]bool, string) {
	if f, err := os.Open(g.path("/proc/config.gz")); err == nil {
		defer f.Close()
		if z, err := gzip.NewReader(f); err == nil {
			return parseConfig(z), "/proc/config.gz"
		}
	}
	if f, err := os.Open(g.path("/boot/config-" + version)); err == nil {
		defer f.Close()
		return parseConfig(f), "/boot/config-" + version
	}
	return nil, "what it shows"
}

// parseConfig returns the options that are built in or modules.
func parseConfig(r io.Reader) map[string]bool {
	on := map[string]bool{}
	lines := bufio.NewScanner(io.LimitReader(r, maxConfig))
	for lines.Scan() {
		name, value, found := strings.Cut(lines.Text(), "=")
		if found && (value == "y" || value == "m") {
			on[name] = true
		}
	}
	return on
}

// shows looks for the effect of an option.
func (g Guest) shows(effect string) bool {
	fs, isFS := strings.CutPrefix(effect, "fs:")
	if !isFS {
		return g.exists(effect)
	}
	known, err := g.read("/proc/filesystems")
	return err == nil && slices.Contains(strings.Fields(known), fs)
}

func release() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", err
	}
	return unix.ByteSliceToString(u.Release[:]), nil
}
