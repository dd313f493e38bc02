package container

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"
)

// TestKillWithoutCgroupKill is about kernels before 5.14 and about v1 alone,
// where the freezer has to catch a container that forks all the time.
func TestKillWithoutCgroupKill(t *testing.T) {
	paths := map[string]string{}
	for _, controller := range []string{"devices", "freezer"} {
		dir := filepath.Join("/sys/fs/cgroup", controller, "coffer-kill-"+strconv.Itoa(os.Getpid()))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Skip("needs root and cgroup v1: ", err)
		}
		paths[controller] = dir
	}
	j := &jail{paths: paths, config: &configs.Config{Cgroups: &cgroups.Cgroup{Resources: &cgroups.Resources{}}}}
	defer func() {
		if err := cgroups.RemovePaths(paths); err != nil {
			t.Error(err)
		}
	}()
	script := "echo $$ >" + paths["devices"] + "/cgroup.procs; echo $$ >" + paths["freezer"] + "/cgroup.procs; echo; while :; do sleep 0.01 & done"
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
	if _, err := stdout.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := j.Freeze(true); err != nil {
		t.Fatal(err)
	}
	if err := j.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); cmd.ProcessState == nil || cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != unix.SIGKILL {
		t.Errorf("the forking shell ended with %v, want SIGKILL", err)
	}
	if err := j.empty(); err != nil {
		t.Errorf("empty: %v", err)
	}
	if err := j.Signal(unix.SIGKILL); err != nil {
		t.Errorf("kill of an empty cgroup: %v", err)
	}
}
