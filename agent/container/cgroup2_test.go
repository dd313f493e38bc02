package container_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	cgroup2Env = "COFFER_TEST_CGROUP2"
	hybrid     = "/sys/fs/cgroup/unified"
)

// TestMain mounts cgroup v2 over the machine's cgroups when TestRealCgroup2
// has started this binary in a mount namespace of its own.
func TestMain(m *testing.M) {
	if os.Getenv(cgroup2Env) != "" {
		if err := mountCgroup2(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
	}
	os.Exit(m.Run())
}

// mountCgroup2 covers the v1 hierarchies with the v2 one of a hybrid machine.
// It binds, because another mount of cgroup2 would set the mount options of
// the whole machine's.
func mountCgroup2() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount(hybrid, "/sys/fs/cgroup", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind cgroup v2: %w", err)
	}
	return nil
}

// On a machine whose controllers are bound to v1 the v2 hierarchy has no
// limits to set; lives, kills and the freezer are all there.
func TestRealCgroup2(t *testing.T) {
	needLab(t)
	if os.Getenv(cgroup2Env) != "" {
		t.Skip("runs in it already")
	}
	if _, err := os.Stat(hybrid); err != nil {
		t.Skip("needs a machine with both cgroup versions: ", err)
	}
	cmd := exec.Command("/proc/self/exe", "-test.short", "-test.run",
		"^TestReal(Life|Exec|HeldInit|Terminal|KillInSharedNamespace|Pause|Cgroupfs|Nested|ManyLives)$")
	cmd.Env = append(os.Environ(), cgroup2Env+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("under cgroup v2: %v\n%s", err, out)
	}
	t.Logf("under cgroup v2: %s", out)
}

// A container sees its own cgroup as the root of the hierarchy under v2.
func TestRealCgroupfs(t *testing.T) {
	if controllers() == nil {
		t.Skip("is about cgroup v2; TestRealCgroup2 and TestCgroup2 of rootfs/vmtest run it")
	}
	l := needLab(t)
	if got := l.output(t, shell("cat /proc/self/cgroup | grep ^0; cat /sys/fs/cgroup/cgroup.procs"), nil); !strings.HasPrefix(got, "0::/\n1\n") {
		t.Errorf("the container sees %q", got)
	}
}
