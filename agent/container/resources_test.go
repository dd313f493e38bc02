package container_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/agent/container"
)

// controllers of cgroup v2 on this machine, nil under v1.
func controllers() []string {
	b, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	if err != nil {
		return nil
	}
	return strings.Fields(string(b))
}

// TestRealResources reads the limits of a spec where the container itself finds
// them, in either version.
func TestRealResources(t *testing.T) {
	if c := controllers(); c != nil && !slices.Contains(c, "memory") {
		t.Skip("the controllers of this machine are bound to cgroup v1: ", c)
	}
	l := needLab(t)
	resources := &specs.LinuxResources{
		CPU:    &specs.LinuxCPU{Shares: ptr(uint64(512)), Quota: ptr(int64(50000)), Period: ptr(uint64(100000)), Cpus: "0", Mems: "0"},
		Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20)), Reservation: ptr(int64(48 << 20))},
		Pids:   &specs.LinuxPids{Limit: ptr(int64(55))},
	}
	files := "cpu/cpu.shares cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us cpuset/cpuset.cpus memory/memory.limit_in_bytes memory/memory.soft_limit_in_bytes pids/pids.max"
	want := "512 50000 100000 0 67108864 50331648 55"
	if controllers() != nil {
		files = "cpu.weight cpu.max cpuset.cpus memory.max memory.low pids.max"
		want = "59 50000 100000 0 67108864 50331648 55"
	}
	got := l.output(t, shell("cd /sys/fs/cgroup; cat "+files), func(s *specs.Spec) { s.Linux.Resources = resources })
	if strings.Join(strings.Fields(got), " ") != want {
		t.Errorf("the container finds %q, want %q", strings.Fields(got), want)
	}
}

// TestRealUnified is about knobs of cgroup v2 by their file's name.
func TestRealUnified(t *testing.T) {
	if c := controllers(); !slices.Contains(c, "memory") {
		t.Skip("needs cgroup v2 with its memory controller; TestCgroup2 of rootfs/vmtest has it: ", c)
	}
	l := needLab(t)
	c := l.run(t, "unified", shell("while read f; do cat /sys/fs/cgroup/$f; done"), func(s *specs.Spec) {
		s.Linux.Resources = &specs.LinuxResources{Unified: map[string]string{"memory.high": "50331648", "cpu.weight": "42", "pids.max": "33"}}
	})
	p := start(t, c)
	for file, want := range map[string]string{"memory.high": "50331648\n", "cpu.weight": "42\n", "pids.max": "33\n"} {
		p.WriteStdin(patient(t), []byte(file+"\n"))
		until(t, p.ReadStdout, want)
	}
	if err := c.Update(patient(t), &specs.LinuxResources{Unified: map[string]string{"cpu.weight": "43"}}); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"memory.high": "50331648\n", "cpu.weight": "43\n"} {
		p.WriteStdin(patient(t), []byte(file+"\n"))
		until(t, p.ReadStdout, want)
	}
	for key, value := range map[string]string{"../pids.max": "1", "memory.no": "1", "cpu.weight": "many"} {
		spec := l.spec("bad", shell("true"))
		spec.Linux.Resources = &specs.LinuxResources{Unified: map[string]string{key: value}}
		if _, err := container.New(patient(t), l.driver, "bad", spec, container.Options{}); err == nil {
			t.Errorf("%s = %s was accepted", key, value)
		}
	}
}

// nested is a container that does what systemd and docker do in one: it moves its
// processes into a cgroup of its own and hands the controllers down. The root
// of its hierarchy then takes no processes any more.
func nested(t *testing.T, l *lab) (*container.Container, *container.Process) {
	t.Helper()
	script := `cd /sys/fs/cgroup && mkdir inner && echo $$ >inner/cgroup.procs && for c in $(cat cgroup.controllers); do echo +$c >cgroup.subtree_control; done
grep -q . cgroup.subtree_control && mkdir other && echo ready; while :; do sleep 100; done`
	c := l.run(t, "nested", shell(script), func(s *specs.Spec) {
		for i, m := range s.Mounts {
			if m.Type == "cgroup" {
				s.Mounts[i].Options = []string{"nosuid", "noexec", "nodev"}
			}
		}
	})
	p := start(t, c)
	until(t, p.ReadStdout, "ready\n")
	return c, p
}

func TestRealNested(t *testing.T) {
	if len(controllers()) == 0 {
		t.Skip("is about cgroup v2; TestRealCgroup2 and TestCgroup2 of rootfs/vmtest run it")
	}
	l := needLab(t)
	c, p := nested(t, l)
	if err := c.Exec(patient(t), "e", shell("cat /proc/self/cgroup; echo here")); err != nil {
		t.Fatalf("exec beside child cgroups: %v", err)
	}
	if got := string(readAll(t, process(t, c, "e").ReadStdout, 4096)); !strings.Contains(got, "0::/inner\n") || !strings.HasSuffix(got, "here\n") {
		t.Errorf("the exec is in %q", got)
	}
	if err := c.Pause(patient(t)); err != nil {
		t.Fatal(err)
	}
	if err := c.Resume(patient(t)); err != nil {
		t.Fatal(err)
	}
	if s, err := c.Stats(patient(t)); err != nil || slices.Contains(controllers(), "pids") && s.Pids.Current == 0 {
		t.Errorf("statistics %+v, %v", s, err)
	}
	if err := c.Signal(patient(t), "", unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	wait(t, p, 137)
	if err := c.Destroy(patient(t)); err != nil { // the lab looks for cgroups that are left
		t.Fatal(err)
	}
}
