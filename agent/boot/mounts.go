package boot

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/mount"
)

// base is one of the mounts that every guest needs.
type base struct {
	fstype, source, target string
	flags                  uintptr
	data                   string
	optional               bool
}

func baseMounts() []base {
	const strict = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	return []base{
		{fstype: "proc", source: "proc", target: "/proc", flags: strict},
		{fstype: "sysfs", source: "sysfs", target: "/sys", flags: strict},
		{fstype: "devtmpfs", source: "dev", target: "/dev", flags: unix.MS_NOSUID, optional: true},
		{fstype: "tmpfs", source: "tmpfs", target: "/dev/shm", flags: unix.MS_NOSUID | unix.MS_NODEV, data: shmBudget},
		{fstype: "devpts", source: "devpts", target: "/dev/pts", flags: unix.MS_NOSUID | unix.MS_NOEXEC, data: "mode=0620,ptmxmode=0666"},
		{fstype: "tmpfs", source: "tmpfs", target: "/run", flags: unix.MS_NOSUID | unix.MS_NODEV, data: "mode=0755," + runBudget},
	}
}

// privateMounts keeps what the agent mounts from showing up elsewhere. Moving
// the root needs it too.
func (b bootstrap) privateMounts(context.Context) error {
	return setPrivate("/")
}

func setPrivate(target string) error {
	if err := unix.Mount("", target, "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	return nil
}

func (b bootstrap) mounts(m base) func(context.Context) error {
	return func(context.Context) error { return b.mount(m) }
}

// mount makes one mount, unless the same file system is there already: PID 1
// mounted /proc, and an image may have prepared more.
func (b bootstrap) mount(m base) error {
	target := b.path(m.target)
	if err := os.MkdirAll(target, 0o755); err != nil {
		return fmt.Errorf("make mount point: %w", err)
	}
	if there, err := mounted(target, m.fstype); err != nil || there {
		return err
	}
	return mount.Do(mount.Request{
		Source: m.source, FSType: m.fstype,
		Options: mount.Options{Flags: m.flags, Data: m.data},
	}, target)
}

// mounted reports whether the file system on top of target is of this type.
// Without /proc there is no table, and nothing of ours is mounted yet.
func mounted(target, fstype string) (bool, error) {
	table, err := mount.Table(target)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	top := ""
	for _, e := range table {
		if e.Target == target {
			top = e.FSType
		}
	}
	return top == fstype, err
}

// configfs is where the kernel hands out attestation reports. Its directory
// exists only in kernels that have it, built in or loaded just before.
func (b bootstrap) configfs(context.Context) error {
	const target = "/sys/kernel/config"
	if _, err := os.Stat(b.path(target)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return b.mount(base{fstype: "configfs", source: "configfs", target: target, flags: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC})
}

// ptmx points /dev/ptmx to the terminals of the mounted devpts.
func (b bootstrap) ptmx(context.Context) error {
	path := b.path("/dev/ptmx")
	if link, err := os.Readlink(path); err == nil && link == "pts/ptmx" {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove old ptmx: %w", err)
	}
	if err := os.Symlink("pts/ptmx", path); err != nil {
		return fmt.Errorf("link ptmx: %w", err)
	}
	return nil
}
