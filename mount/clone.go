package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Clone makes the mount tree at path in the mount namespace of the process from
// appear at target in that of the process to. Both paths are resolved in their
// own namespaces, whose roots they cannot leave; missing directories of target
// are made. The clone shares the file systems, and what from mounts later does
// not show up.
func Clone(from int, path string, to int, target string) error {
	result := make(chan error)
	go func() {
		// The thread is in a foreign namespace at the end. It is not unlocked,
		// so the runtime ends it with the goroutine.
		runtime.LockOSThread()
		result <- cloneThread(from, path, to, target)
	}()
	if err := <-result; err != nil {
		return fmt.Errorf("share mount %s: %w", path, err)
	}
	return nil
}

func cloneThread(from int, path string, to int, target string) error {
	// The other namespace is opened first: from the first one its /proc is out
	// of sight.
	dst, err := openMountNS(to)
	if err != nil {
		return err
	}
	defer dst.Close()
	src, err := openMountNS(from)
	if err != nil {
		return err
	}
	defer src.Close()
	if err := unix.Unshare(unix.CLONE_FS); err != nil { // setns wants a root of the thread's own
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Setns(int(src.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("join mount namespace of pid %d: %w", from, err)
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return fmt.Errorf("open tree %s: %w", path, err)
	}
	defer unix.Close(tree)
	if err := unix.Setns(int(dst.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("join mount namespace of pid %d: %w", to, err)
	}
	return attach(tree, target)
}

// openMountNS opens the mount namespace of a process, which must not be our
// own: that is what a number shows that was given to one of our own processes
// meanwhile, and everything in the guest could be reached there.
func openMountNS(pid int) (*os.File, error) {
	f, err := os.Open(filepath.Join("/proc", strconv.Itoa(pid), "ns", "mnt"))
	if err != nil {
		return nil, err
	}
	theirs, err := f.Stat()
	ours, err2 := os.Stat("/proc/thread-self/ns/mnt")
	if err := errors.Join(err, err2); err != nil {
		f.Close()
		return nil, err
	}
	if os.SameFile(theirs, ours) {
		f.Close()
		return nil, fmt.Errorf("pid %d has no mount namespace of its own: %w", pid, errdefs.ErrFailedPrecondition)
	}
	return f, nil
}

// attach puts the tree on target, a file or a directory like its own root.
func attach(tree int, target string) error {
	var st unix.Stat_t
	if err := unix.Fstat(tree, &st); err != nil {
		return fmt.Errorf("stat tree: %w", err)
	}
	if err := makePoint(target, st.Mode&unix.S_IFMT == unix.S_IFDIR); err != nil {
		return err
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach to %s: %w", target, err)
	}
	return nil
}

func makePoint(target string, dir bool) error {
	parent := target
	if !dir {
		parent = filepath.Dir(target)
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return fmt.Errorf("make mount point: %w", err)
	}
	if dir {
		return nil
	}
	f, err := os.OpenFile(target, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("make mount point: %w", err)
	}
	return f.Close()
}
