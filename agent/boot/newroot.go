package boot

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// movableRoot makes pivot_root(2) work for containers. The kernel refuses it on
// the initramfs, the root of all mounts, which has no parent. A bind mount of
// the root over itself has one, and to stand in it changes nothing else.
func (b bootstrap) movableRoot(context.Context) error {
	var st unix.Statfs_t
	if err := unix.Statfs("/", &st); err != nil {
		return fmt.Errorf("look at root file system: %w", err)
	}
	if st.Type != unix.RAMFS_MAGIC && st.Type != unix.TMPFS_MAGIC {
		return nil
	}
	return moveRoot()
}

// moveRoot binds the root with all its mounts and takes the copy for the root of
// this process. PID 1 keeps the old one, where it has all that it needs.
func moveRoot() error {
	const at = "/.newroot"
	if err := os.Mkdir(at, 0o700); err != nil && !os.IsExist(err) {
		return fmt.Errorf("make %s: %w", at, err)
	}
	if err := unix.Mount("/", at, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind root: %w", err)
	}
	if err := unix.Chdir(at); err != nil {
		return fmt.Errorf("enter %s: %w", at, err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("change root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter new root: %w", err)
	}
	return os.Remove(at)
}
