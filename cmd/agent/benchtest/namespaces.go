package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// enclose runs this program again in namespaces of its own. They end with it,
// and with them every process and mount of the run; cgroups have to be removed.
func enclose(ctx context.Context, args []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cgroup := fmt.Sprintf("/coffer-bench-%d", os.Getpid())
	cmd := exec.CommandContext(ctx, self, append([]string{roleInside, "-cgroup=" + cgroup}, args...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
	}
	err = cmd.Run()
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	if left := removeCgroups(cgroup); left != nil {
		return left
	}
	return err
}

// cover mounts what the run needs for itself: /proc of the pid namespace, an
// empty /run where the agent and its rivals keep everything, and loopback.
func cover() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for at, kind := range map[string]string{"/proc": "proc", "/run": "tmpfs"} {
		if err := unix.Mount(kind, at, kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", at, err)
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

// removeCgroups removes name in every hierarchy, version 1 or 2.
func removeCgroups(name string) error {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(table)) {
		left, right, _ := strings.Cut(line, " - ")
		if !strings.HasPrefix(right, "cgroup") {
			continue
		}
		if err := removeTree(filepath.Join(strings.Fields(left)[4], name)); err != nil {
			return err
		}
	}
	return nil
}

// removeTree removes cgroups from the leaves up. Those whose last process was
// just killed are busy for a moment.
func removeTree(root string) error {
	var dirs []string
	filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	for _, dir := range slices.Backward(dirs) {
		err := os.Remove(dir)
		for end := time.Now().Add(5 * time.Second); err != nil && !os.IsNotExist(err) && time.Now().Before(end); {
			time.Sleep(10 * time.Millisecond)
			err = os.Remove(dir)
		}
		if err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	return nil
}
