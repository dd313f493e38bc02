package mount

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Options are the words of mount(8) sorted into what mount(2) wants.
type Options struct {
	Flags       uintptr
	Propagation uintptr // MS_PRIVATE and its kind, set by a call of its own
	Data        string  // for the file system, joined by commas
}

// flagWord is a word of mount(8): the bits it sets or clears.
type flagWord struct {
	set, clear, propagation uintptr
}

// Names are those of mount(8). Words that only matter in fstab set nothing.
func flagWords() map[string]flagWord {
	const rec = unix.MS_REC
	const atime = unix.MS_NOATIME | unix.MS_RELATIME | unix.MS_STRICTATIME
	return map[string]flagWord{
		"defaults": {}, "loud": {clear: unix.MS_SILENT}, "silent": {set: unix.MS_SILENT},
		"_netdev": {}, "auto": {}, "noauto": {}, "nofail": {}, "nouser": {},

		"ro": {set: unix.MS_RDONLY}, "rw": {clear: unix.MS_RDONLY},
		"nosuid": {set: unix.MS_NOSUID}, "suid": {clear: unix.MS_NOSUID},
		"nodev": {set: unix.MS_NODEV}, "dev": {clear: unix.MS_NODEV},
		"noexec": {set: unix.MS_NOEXEC}, "exec": {clear: unix.MS_NOEXEC},
		"sync": {set: unix.MS_SYNCHRONOUS}, "async": {clear: unix.MS_SYNCHRONOUS},
		"dirsync": {set: unix.MS_DIRSYNC},
		"mand":    {set: unix.MS_MANDLOCK}, "nomand": {clear: unix.MS_MANDLOCK},
		"iversion": {set: unix.MS_I_VERSION}, "noiversion": {clear: unix.MS_I_VERSION},
		"lazytime": {set: unix.MS_LAZYTIME}, "nolazytime": {clear: unix.MS_LAZYTIME},

		"noatime": {set: unix.MS_NOATIME, clear: atime}, "atime": {clear: unix.MS_NOATIME},
		"relatime": {set: unix.MS_RELATIME, clear: atime}, "norelatime": {clear: unix.MS_RELATIME},
		"strictatime": {set: unix.MS_STRICTATIME, clear: atime}, "nostrictatime": {clear: unix.MS_STRICTATIME},
		"nodiratime": {set: unix.MS_NODIRATIME}, "diratime": {clear: unix.MS_NODIRATIME},
		"nosymfollow": {set: unix.MS_NOSYMFOLLOW}, "symfollow": {clear: unix.MS_NOSYMFOLLOW},

		"bind": {set: unix.MS_BIND}, "rbind": {set: unix.MS_BIND | rec},
		"remount": {set: unix.MS_REMOUNT},

		"private": {propagation: unix.MS_PRIVATE}, "rprivate": {propagation: unix.MS_PRIVATE | rec},
		"shared": {propagation: unix.MS_SHARED}, "rshared": {propagation: unix.MS_SHARED | rec},
		"slave": {propagation: unix.MS_SLAVE}, "rslave": {propagation: unix.MS_SLAVE | rec},
		"unbindable": {propagation: unix.MS_UNBINDABLE}, "runbindable": {propagation: unix.MS_UNBINDABLE | rec},
	}
}

// ParseOptions sorts mount(8) words into flags and data. An entry may hold
// several words with commas between them. Words that are notes between the
// shim and the agent (io.katacontainers.*, X-kata.*, fsgid=N) are left out: the
// kernel would refuse them. "loop" is an error, since nothing here sets up
// loop devices and the word would otherwise reach the file system.
func ParseOptions(words []string) (Options, error) {
	var o Options
	var data []string
	table := flagWords()
	for _, w := range SplitOptions(words) {
		f, known := table[w]
		switch {
		case w == "loop" || strings.HasPrefix(w, "loop="):
			return Options{}, fmt.Errorf("mount option %q is not supported: %w", w, errdefs.ErrInvalidArgument)
		case strings.ContainsRune(w, 0):
			return Options{}, fmt.Errorf("mount option with a zero byte: %w", errdefs.ErrInvalidArgument)
		case known:
			o.Flags = o.Flags&^f.clear | f.set
			if f.propagation != 0 {
				o.Propagation = f.propagation
			}
		case !isNote(w):
			data = append(data, w)
		}
	}
	o.Data = strings.Join(data, ",")
	return o, nil
}

// SplitOptions cuts entries at commas and drops empty words. An entry that is a
// note of the shim stays whole: it describes a layer with commas and words that
// are not meant for this mount.
func SplitOptions(entries []string) []string {
	var words []string
	for _, e := range entries {
		if strings.HasPrefix(e, shimNote) {
			words = append(words, e)
			continue
		}
		for w := range strings.SplitSeq(e, ",") {
			if w = strings.TrimSpace(w); w != "" {
				words = append(words, w)
			}
		}
	}
	return words
}

const shimNote = "io.katacontainers."

func isNote(w string) bool {
	return strings.HasPrefix(w, shimNote) || strings.HasPrefix(w, "X-kata.") ||
		strings.HasPrefix(w, "fsgid=")
}

// FlagNames spells mount flags as mount(8) does, for errors.
func FlagNames(flags uintptr) string {
	names := []struct {
		bit  uintptr
		name string
	}{
		{unix.MS_REMOUNT, "remount"}, {unix.MS_BIND, "bind"}, {unix.MS_MOVE, "move"}, {unix.MS_REC, "rec"},
		{unix.MS_PRIVATE, "private"}, {unix.MS_SHARED, "shared"}, {unix.MS_SLAVE, "slave"},
		{unix.MS_UNBINDABLE, "unbindable"}, {unix.MS_RDONLY, "ro"}, {unix.MS_NOSUID, "nosuid"},
		{unix.MS_NODEV, "nodev"}, {unix.MS_NOEXEC, "noexec"}, {unix.MS_SYNCHRONOUS, "sync"},
		{unix.MS_DIRSYNC, "dirsync"}, {unix.MS_NOATIME, "noatime"}, {unix.MS_RELATIME, "relatime"},
		{unix.MS_STRICTATIME, "strictatime"}, {unix.MS_NODIRATIME, "nodiratime"}, {unix.MS_SILENT, "silent"},
		{unix.MS_NOSYMFOLLOW, "nosymfollow"},
	}
	var out []string
	for _, n := range names {
		if flags&n.bit != 0 {
			out, flags = append(out, n.name), flags&^n.bit
		}
	}
	if flags != 0 {
		out = append(out, fmt.Sprintf("%#x", flags))
	}
	return strings.Join(out, ",")
}
