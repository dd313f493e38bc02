package vm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func TestMachineArgs(t *testing.T) {
	for _, tc := range []struct {
		name        string
		config      Config
		accelerator string
		want        []string // each a run of arguments
	}{
		{"tcg avoids cx16", Config{}, "tcg", []string{"-accel tcg,thread=single -cpu max,-cx16"}},
		{"kvm", Config{}, "kvm", []string{"-accel kvm -cpu host"}},
		{"root disk", Config{Root: "/a,b", Words: []string{"init=/x"}}, "tcg",
			[]string{"snapshot=on,file=/a,,b -device nvme,", "root=/dev/nvme0n1p1 rootfstype=ext4 ro rootwait init=/x"}},
		{"words", Config{Words: []string{"a=b", "init"}}, "tcg", []string{"random.trust_cpu=on a=b init"}},
		{"disk", Config{Disks: []Disk{{Path: "/a,b", ReadOnly: true, Serial: "s", Slot: 5}}}, "tcg",
			[]string{"file=/a,,b,readonly=on", "virtio-blk-pci,drive=disk0,serial=s,bus=pcie.0,addr=0x5"}},
		{"network", Config{Network: &Network{MAC: "52:54:00:00:00:01", Restrict: true}}, "tcg",
			[]string{"user,id=net0,restrict=on", "virtio-net-pci,netdev=net0,romfile=,mac=52:54:00:00:00:01"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := strings.Join(machineArgs(tc.config, tc.accelerator), " ")
			for _, want := range tc.want {
				if !strings.Contains(got, want) {
					t.Errorf("%q is not in %q", want, got)
				}
			}
		})
	}
}

func TestChoose(t *testing.T) {
	if got := Choose(Loopback, "/bin/true"); got != Loopback {
		t.Errorf("an explicit choice became %q", got)
	}
	if got := Choose(Auto, "/nonexistent"); got != Loopback && got != Vhost {
		t.Errorf("got %q without a device program", got)
	}
	if got := Choose(Auto, "/bin/true"); got != VhostUser && got != Vhost {
		t.Errorf("got %q with a device program", got)
	}
}

func TestConsoleIsBounded(t *testing.T) {
	c := newConsole(nil)
	for range 40 {
		c.Write([]byte(strings.Repeat("x", 10_000)))
	}
	c.Write([]byte("the end"))
	if got := c.String(); len(got) > consoleLimit || !strings.HasSuffix(got, "xthe end") {
		t.Errorf("kept %d bytes, ending in %q", len(got), got[max(0, len(got)-10):])
	}
}

func TestConsoleWait(t *testing.T) {
	ended := make(chan struct{})
	c := newConsole(nil)
	go func() {
		c.Write([]byte("rea"))
		c.Write([]byte("dy"))
	}()
	if err := c.wait(t.Context(), "ready", ended); err != nil {
		t.Errorf("text in two parts: %v", err)
	}
	short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := c.wait(short, "never", ended); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want a deadline", err)
	}
	close(ended)
	if err := c.wait(t.Context(), "never", ended); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("got %v after the end", err)
	}
	if err := c.wait(t.Context(), "ready", ended); err != nil {
		t.Errorf("text written before the end: %v", err)
	}
}

// TestKillTakesTheGroup starts a shell with a child, and sees both go.
func TestKillTakesTheGroup(t *testing.T) {
	c := newConsole(nil)
	p, err := startProcess(c, "/bin/sh", "-c", "sleep 1000 & echo started; wait")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.wait(t.Context(), "started", p.done); err != nil {
		t.Fatal(err)
	}
	p.kill()
	p.kill()
	// Members that wait for their parent to collect them still count.
	if err := unix.Kill(-p.cmd.Process.Pid, 0); err == nil && groupRuns(t, p.cmd.Process.Pid) {
		t.Error("the group still has running members")
	}
}

func groupRuns(t *testing.T, group int) bool {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(stats, func(path string) bool {
		text, err := os.ReadFile(path)
		if err != nil {
			return false
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		field := strings.Fields(rest)
		return len(field) > 2 && field[0] != "Z" && field[2] == strconv.Itoa(group)
	})
}

func TestStartCleansUp(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	for name, c := range map[string]Config{
		"no kernel":            {Initrd: "/dev/null"},
		"no root":              {Kernel: "/dev/null"},
		"two roots":            {Kernel: "/dev/null", Initrd: "/dev/null", Root: "/dev/null"},
		"no device program":    {Kernel: "/dev/null", Initrd: "/dev/null", Transport: VhostUser, VsockDevice: "/nonexistent", Accelerator: "tcg"},
		"device program fails": {Kernel: "/dev/null", Initrd: "/dev/null", Transport: VhostUser, VsockDevice: "/bin/false", Accelerator: "tcg"},
		"unknown transport":    {Kernel: "/dev/null", Initrd: "/dev/null", Transport: "pigeon", Accelerator: "tcg"},
	} {
		t.Run(name, func(t *testing.T) {
			if v, err := Start(t.Context(), c); err == nil {
				v.Stop()
				t.Fatal("started")
			}
			if left, _ := os.ReadDir(temp); len(left) > 0 {
				t.Errorf("left %v behind", left)
			}
		})
	}
}
