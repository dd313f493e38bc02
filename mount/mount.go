// Package mount wraps the kernel's mount calls for the whole program: errors
// that say what was mounted where, options as mount(8) writes them, overlays
// of any depth, and places below a root that no symlink can lead out of.
//
// Paths and options come from the host in the end. Callers that act on a path
// they were given use a Place; Do is for paths that are constants of ours.
//
// It imports github.com/moby/sys/mountinfo to read the kernel's mount table.
package mount

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Error is a failed mount call with everything needed to understand it.
type Error struct {
	Op     string // "mount", "unmount", "remount", "set propagation of", ...
	Source string // empty when the call has none
	Target string
	FSType string
	Flags  uintptr
	Data   string
	Err    error // the errno
}

// Error prints the data too: options are the host's own words, never secrets.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Source != "" {
		fmt.Fprintf(&b, " %q on", e.Source)
	}
	fmt.Fprintf(&b, " %q", e.Target)
	if e.FSType != "" {
		fmt.Fprintf(&b, " type %q", e.FSType)
	}
	if s := FlagNames(e.Flags); s != "" {
		fmt.Fprintf(&b, " flags %s", s)
	}
	if e.Data != "" {
		fmt.Fprintf(&b, " data %q", clip(e.Data, 256))
	}
	return b.String() + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// maxData is what mount(2) takes as options: a page, with the final zero byte
// inside.
const maxData = 4095

// Request is one mount.
type Request struct {
	Source string
	FSType string
	Options
}

// Do mounts r on target. target is resolved as the kernel does it, symlinks
// included, so it must not come from outside.
func Do(r Request, target string) error {
	return r.on(target, func() (string, func(), error) { return target, func() {}, nil })
}

// on mounts on the path that open returns and names it target in errors. open
// is asked anew for each call to the kernel, because a path by descriptor that
// was opened before a mount still means what the mount now covers.
func (r Request) on(target string, open func() (string, func(), error)) error {
	if len(r.Data) > maxData {
		return fmt.Errorf("mount on %q: options of %d bytes exceed %d: %w", target, len(r.Data), maxData, errdefs.ErrInvalidArgument)
	}
	for _, c := range r.calls() {
		path, done, err := open()
		if err != nil {
			return err
		}
		err = unix.Mount(c.source, path, c.fstype, c.flags, c.data)
		done()
		if err != nil {
			return &Error{c.op, r.Source, target, c.fstype, c.flags, c.data, err}
		}
	}
	return nil
}

// call is one use of mount(2).
type call struct {
	op, source, fstype string
	flags              uintptr
	data               string
}

// calls splits a request into what mount(2) can do at once: it ignores most
// flags when it makes a bind, and changes propagation only on its own.
func (r Request) calls() []call {
	op := "mount"
	if r.Flags&unix.MS_REMOUNT != 0 {
		op = "remount"
	}
	cs := []call{{op, r.Source, r.FSType, r.Flags, r.Data}}
	const free = unix.MS_BIND | unix.MS_REC | unix.MS_REMOUNT | unix.MS_SILENT
	if r.Flags&unix.MS_BIND != 0 && r.Flags&unix.MS_REMOUNT == 0 && r.Flags&^uintptr(free) != 0 {
		flags := r.Flags&^unix.MS_REC | unix.MS_REMOUNT
		cs = append(cs, call{"remount", "", "", flags, ""})
	}
	if r.Propagation != 0 {
		cs = append(cs, call{"set propagation of", "", "", r.Propagation, ""})
	}
	return cs
}

// Unmount detaches what is mounted at target, which must be ours. It does not
// follow a symlink in the last component.
func Unmount(target string) error {
	return unmount(target, target, unix.UMOUNT_NOFOLLOW)
}

// UnmountLazy takes the mount out of sight at once and lets the kernel drop it
// when its last user is gone. Only for trees of a container that was killed:
// what is still written then reaches the file system after we said it is gone.
func UnmountLazy(target string) error {
	return unmount(target, target, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
}

func unmount(path, target string, flags int) error {
	if err := unix.Unmount(path, flags); err != nil {
		op := "unmount"
		if flags&unix.MNT_DETACH != 0 {
			op = "unmount lazily"
		}
		return &Error{Op: op, Target: target, Err: err}
	}
	return nil
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n] + "…"
}
