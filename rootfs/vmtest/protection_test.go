package vmtest

import (
	"strconv"
	"strings"
	"testing"
	"time"

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
	look := func(script string) string {
		id := "look" + strconv.Itoa(len(script))
		spec := containerSpec(id, "sh", "-c", script)
		for _, dir := range []string{"/proc", "/sys"} {
			spec.Mounts = append(spec.Mounts, &agentpb.Mount{Destination: "/tmp" + dir, Source: dir, Type: "bind", Options: []string{"rbind", "ro"}})
		}
		g.start(t, id, spec)
		out := g.output(t, id)
		if code := g.wait(t, id); code != 0 {
			t.Fatalf("%s: ended with %d: %s", script, code, out)
		}
		return out
	}
	seconds, err := strconv.ParseInt(strings.TrimSpace(look("busybox date +%s")), 10, 64)
	if err != nil || time.Unix(seconds, 0).Year() < 2026 {
		t.Errorf("the guest believes in %v, %v", time.Unix(seconds, 0), err)
	}
	for _, tc := range []struct{ name, script, want string }{
		{"random numbers of the host count for nothing", "cat /tmp/sys/class/misc/hw_random/rng_current /tmp/sys/class/misc/hw_random/rng_quality", "virtio_rng.0\n0\n"},
		{"memory of the agent", "cat /tmp/sys/fs/cgroup/coffer/memory.min", "33554432\n"},
		{"killed last", "for p in /tmp/proc/[0-9]*; do busybox grep -q guest[-]agent $p/cmdline && cat $p/oom_score_adj; done; true", "-999\n"},
		{"in its cgroup", "for p in /tmp/proc/[0-9]*; do busybox grep -q guest[-]agent $p/cmdline && cat $p/cgroup; done; true", "0::/../../coffer\n"},
		{"memory for /dev/shm", "busybox grep -c ' /dev/shm tmpfs .*size=[0-9]*k' /tmp/proc/1/mounts", "1\n"},
	} {
		if got := look(tc.script); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
}
