package vmtest

import (
	"strings"
	"testing"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

// TestProtection looks at a guest whose host set the clock far back and brings
// random numbers, by the guest's own /proc, /sys and cgroups.
func TestProtection(t *testing.T) {
	ownMachine(t)
	c := sharedConfig(t)
	c.Arguments = []string{"-rtc", "base=2001-01-01", "-device", "virtio-rng-pci"}
	g := Boot(t, c)
	g.createSandbox(t, "pod")
	questions := []struct{ name, script, want string }{
		{"random numbers of the host count for nothing", "cat /tmp/sys/class/misc/hw_random/rng_current /tmp/sys/class/misc/hw_random/rng_quality", "virtio_rng.0\n0\n"},
		{"memory of the agent", "cat /tmp/sys/fs/cgroup/coffer/memory.min", "33554432\n"},
		{"killed last", "for p in /tmp/proc/[0-9]*; do busybox grep -q guest[-]agent $p/cmdline && cat $p/oom_score_adj; done", "-999\n"},
		{"in its cgroup", "for p in /tmp/proc/[0-9]*; do busybox grep -q guest[-]agent $p/cmdline && cat $p/cgroup; done", "0::/../../coffer\n"},
		{"memory for /dev/shm", "busybox grep -c ' /dev/shm tmpfs .*size=[0-9]*k' /tmp/proc/1/mounts", "1\n"},
		{"clock", "[ $(busybox date +%Y) -gt 2025 ] && echo later than the host says", "later than the host says\n"},
	}
	const next = "next\n"
	script := ""
	for _, q := range questions {
		script += q.script + "\necho " + next
	}
	spec := containerSpec("look", "sh", "-c", script)
	for _, dir := range []string{"/proc", "/sys"} {
		spec.Mounts = append(spec.Mounts, &agentpb.Mount{Destination: "/tmp" + dir, Source: dir, Type: "bind", Options: []string{"rbind", "ro"}})
	}
	g.start(t, "look", spec)
	answers := strings.SplitAfter(g.output(t, "look"), next)
	for i, q := range questions {
		if got := strings.TrimSuffix(answers[min(i, len(answers)-1)], next); got != q.want {
			t.Errorf("%s: got %q, want %q", q.name, got, q.want)
		}
	}
}
