package container_test

import (
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func devices(rules ...specs.LinuxDeviceCgroup) func(*specs.Spec) {
	return func(s *specs.Spec) {
		caps(s, "CAP_MKNOD")
		s.Linux.Resources = &specs.LinuxResources{Devices: rules}
	}
}

func rule(allow bool, kind string, major, minor int64, access string) specs.LinuxDeviceCgroup {
	r := specs.LinuxDeviceCgroup{Allow: allow, Type: kind, Access: access}
	if major >= 0 {
		r.Major = &major
	}
	if minor >= 0 {
		r.Minor = &minor
	}
	return r
}

// opened runs a container with the rules, which makes nodes of some devices,
// and returns those that it may not open. An allowed node with no device behind
// it fails with another error than EPERM.
func (l *lab) opened(t *testing.T, rules ...specs.LinuxDeviceCgroup) string {
	t.Helper()
	script := `try() { busybox mknod /dev/$1 $2 $3 $4 || return; if (exec 3>/dev/$1) 2>&1 | grep -q 'not permitted'; then echo -n "$1 "; fi; }
try my-null c 1 3; try my-tun c 10 200; try kmsg c 1 11; try disk b 240 7; try fuse c 10 229; echo`
	return strings.TrimSpace(l.output(t, shell(script), devices(rules...)))
}

// TestRealDeviceRules sees which devices a container cannot open: by default
// those beyond the usual set, although it may make nodes of all.
func TestRealDeviceRules(t *testing.T) {
	l := needLab(t)
	for _, tc := range []struct {
		name   string
		rules  []specs.LinuxDeviceCgroup
		denied string
	}{
		{"none, as shims send it", nil, "kmsg disk fuse"},
		{"one more", []specs.LinuxDeviceCgroup{rule(true, "c", 1, 11, "rwm")}, "disk fuse"},
		{"reading is not writing", []specs.LinuxDeviceCgroup{rule(true, "c", 1, 11, "r"), rule(true, "b", 240, 7, "rw")}, "kmsg fuse"},
		{"a whole kind", []specs.LinuxDeviceCgroup{rule(true, "b", 240, -1, "rwm"), rule(true, "c", 10, -1, "rwm")}, "kmsg"},
		{"deny, then allow", []specs.LinuxDeviceCgroup{rule(false, "a", -1, -1, "rwm"), rule(true, "c", 10, 229, "rw")}, "kmsg disk"},
		{"privileged", []specs.LinuxDeviceCgroup{rule(true, "a", -1, -1, "rwm")}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := l.opened(t, tc.rules...); got != tc.denied {
				t.Errorf("cannot open %q, want %q", got, tc.denied)
			}
		})
	}
}

// TestRealPrivilegedNeighbour is a pod with a privileged container: it widens
// nothing for those that come later in the same pod's cgroup.
func TestRealPrivilegedNeighbour(t *testing.T) {
	l := needLab(t)
	privileged := l.run(t, "privileged", shell("exec sleep 100"), devices(rule(true, "a", -1, -1, "rwm")))
	start(t, privileged)
	if got := l.opened(t); got != "kmsg disk fuse" {
		t.Errorf("its neighbour cannot open %q", got)
	}
}

// TestRealUpdateKeepsDeviceRules: limits that change must not open devices.
func TestRealUpdateKeepsDeviceRules(t *testing.T) {
	l := needLab(t)
	c := l.run(t, "update", shell("busybox mknod /dev/kmsg c 1 11; while read line; do (exec 3>/dev/kmsg) 2>&1; echo .; done"), devices())
	p := start(t, c)
	for range 2 {
		p.WriteStdin(patient(t), []byte("\n"))
		until(t, p.ReadStdout, "not permitted\n.\n")
		if err := c.Update(patient(t), &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(50))}}); err != nil {
			t.Fatal(err)
		}
	}
}
