package container_test

import (
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/agent/container"
)

func TestRealPause(t *testing.T) {
	l := needLab(t)
	c := l.run(t, "pause", shell("while read line; do echo $line; done"), nil)
	p := start(t, c)
	if err := c.Pause(patient(t)); err != nil {
		t.Fatal(err)
	}
	p.WriteStdin(patient(t), []byte("x\n"))
	if b, err := p.ReadStdout(brief(t), 10); err == nil {
		t.Errorf("a paused container printed %q", b)
	}
	if err := c.Resume(patient(t)); err != nil {
		t.Fatal(err)
	}
	until(t, p.ReadStdout, "x")
	for _, execID := range []string{"", "pause"} {
		if err := c.Pause(patient(t)); err != nil && execID == "" {
			t.Fatal(err)
		}
		if err := c.Signal(patient(t), execID, unix.SIGKILL); err != nil {
			t.Errorf("kill of a paused container: %v", err)
		}
	}
	wait(t, p, 137)
}

func TestRealLimits(t *testing.T) {
	l := needLab(t)
	limit, more := int64(32<<20), int64(64<<20)
	c := l.run(t, "limits", shell("exec sleep 100"), func(s *specs.Spec) {
		s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}
	})
	start(t, c)
	stats := func() *container.Stats {
		t.Helper()
		s, err := c.Stats(patient(t))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := stats()
	if s.Memory.Usage.Limit != uint64(limit) || s.Memory.Usage.Usage == 0 || s.Memory.Stats["rss"] == 0 && s.Memory.Stats["anon"] == 0 {
		t.Errorf("memory = %+v, want limit %d and some use", s.Memory, limit)
	}
	if s.CPU.Total == 0 || s.Pids.Current == 0 {
		t.Errorf("cpu = %+v, pids = %+v", s.CPU, s.Pids)
	}
	if err := c.Update(patient(t), &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &more}, Pids: &specs.LinuxPids{Limit: ptr(int64(9))}}); err != nil {
		t.Fatal(err)
	}
	if s := stats(); s.Memory.Usage.Limit != uint64(more) || s.Pids.Limit != 9 {
		t.Errorf("after the update: memory %d, pids %d", s.Memory.Usage.Limit, s.Pids.Limit)
	}
	bad := uint64(1) // below the kernel's minimum
	if err := c.Update(patient(t), &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}, CPU: &specs.LinuxCPU{Period: &bad}}); err == nil {
		t.Error("an impossible period was accepted")
	}
	if s := stats(); s.Memory.Usage.Limit != uint64(more) {
		t.Errorf("after the failed update: memory %d, want %d again", s.Memory.Usage.Limit, more)
	}
}

func ptr[T any](v T) *T { return &v }

func TestRealOOM(t *testing.T) {
	l := needLab(t)
	sameFiles(t)
	limit := int64(64 << 20) // a held init with the race detector takes 20 MB
	c := l.run(t, "oom", shell("exec dd if=/dev/zero of=/dev/null bs=300M count=1"), func(s *specs.Spec) {
		s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &limit}}
	})
	p := start(t, c)
	select {
	case <-c.OOM():
	case <-patient(t).Done():
		t.Error("no word of the kill")
	}
	wait(t, p, 137)
	quiet := l.run(t, "quiet", shell("true"), nil)
	wait(t, start(t, quiet), 0)
	if err := quiet.Destroy(patient(t)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-quiet.OOM():
		t.Error("a container that was only removed reports a kill")
	default:
	}
}
