package boot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/mount"
)

const cgroupRoot = "/sys/fs/cgroup"

// controllers are those of version 1 that a container runtime knows.
func controllers() []string {
	return []string{
		"cpu", "cpuacct", "blkio", "cpuset", "memory", "devices", "freezer",
		"net_cls", "perf_event", "net_prio", "hugetlb", "pids", "rdma",
	}
}

// cgroups mounts version 2 where the kernel has it and nobody asked for the old
// one, else version 1.
func (b bootstrap) cgroups(ctx context.Context) error {
	known, err := os.ReadFile(b.path("/proc/filesystems"))
	if err != nil {
		return fmt.Errorf("read known file systems: %w", err)
	}
	if !b.CgroupV1 && slices.Contains(strings.Fields(string(known)), "cgroup2") {
		return b.cgroupV2()
	}
	return b.cgroupV1(ctx)
}

func (b bootstrap) cgroupV2() error {
	m := base{
		fstype: "cgroup2", source: "cgroup2", target: cgroupRoot,
		flags: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_RELATIME,
		data:  "nsdelegate,memory_recursiveprot",
	}
	err := b.mount(m)
	if errors.Is(err, unix.EINVAL) { // memory_recursiveprot is younger than version 2
		m.data = "nsdelegate"
		err = b.mount(m)
	}
	return err
}

// cgroupV1 gives each controller a hierarchy of its own. Without the devices
// controller nothing would keep containers from devices, and the reference
// agent mounts nothing then; containers that ask for limits fail.
func (b bootstrap) cgroupV1(ctx context.Context) error {
	enabled, err := b.enabledControllers()
	if err != nil {
		return err
	}
	if !slices.Contains(enabled, "devices") {
		slog.WarnContext(ctx, "kernel has no devices controller, cgroups are not mounted")
		return nil
	}
	tmpfs := base{fstype: "tmpfs", source: "tmpfs", target: cgroupRoot, flags: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, data: "mode=755"}
	if err := b.mount(tmpfs); err != nil {
		return err
	}
	for _, c := range enabled {
		m := base{fstype: "cgroup", source: "cgroup", target: cgroupRoot + "/" + c, flags: tmpfs.flags | unix.MS_RELATIME, data: c}
		if err := b.mount(m); err != nil {
			return err
		}
	}
	if err := useHierarchy(b.path(cgroupRoot + "/memory/memory.use_hierarchy")); err != nil {
		return err
	}
	return mount.Do(mount.Request{
		Source: "tmpfs", FSType: "tmpfs",
		Options: mount.Options{Flags: tmpfs.flags | unix.MS_REMOUNT | unix.MS_RDONLY, Data: tmpfs.data},
	}, b.path(cgroupRoot))
}

// useHierarchy makes a limit count for the cgroups below too.
func useHierarchy(path string) error {
	err := os.WriteFile(path, []byte("1"), 0)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("account memory by hierarchy: %w", err)
	}
	return nil
}

// enabledControllers reads the lines "name hierarchy number enabled".
func (b bootstrap) enabledControllers() ([]string, error) {
	text, err := os.ReadFile(b.path("/proc/cgroups"))
	if err != nil {
		return nil, fmt.Errorf("read controllers: %w", err)
	}
	var enabled []string
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) == 4 && f[3] == "1" && slices.Contains(controllers(), f[0]) {
			enabled = append(enabled, f[0])
		}
	}
	return enabled, nil
}
