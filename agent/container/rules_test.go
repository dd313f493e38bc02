package container

import (
	"errors"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/cgroups"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestMinds(t *testing.T) {
	const term = "0000000000004000" // bit 14 is signal 15
	for _, tc := range []struct {
		name   string
		status string
		want   bool
	}{
		{"caught", "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\nSigCgt:\t" + term + "\n", true},
		{"ignored", "SigIgn:\t" + term + "\n", true},
		{"blocked", "SigBlk:\t" + term + "\n", true},
		{"pending only", "SigPnd:\t" + term + "\nShdPnd:\t" + term + "\n", false},
		{"neighbours", "SigCgt:\t000000000000a000\n", false},
		{"not a number", "SigCgt:\tx\n", false},
		{"nothing", "", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := minds(strings.NewReader(tc.status), unix.SIGTERM); got != tc.want {
				t.Errorf("minds = %v, want %v", got, tc.want)
			}
		})
	}
}

func TestCgroupPath(t *testing.T) {
	for _, tc := range []struct {
		name, given string
		systemd     bool
		want        string
		bySystemd   bool
		bad         bool
	}{
		{name: "plain", given: "/kubepods/pod1/c1", want: "/kubepods/pod1/c1"},
		{name: "empty", given: "", want: "/cid"},
		{name: "relative", given: "a/b", want: "/a/b"},
		{name: "systemd's form without systemd", given: "kubepods-pod1.slice:cri-containerd:c1", want: "/kubepods-pod1.slice/cri-containerd/c1"},
		{name: "systemd's form", given: "kubepods.slice:cri-containerd:c1", systemd: true, want: "kubepods.slice:cri-containerd:c1", bySystemd: true},
		{name: "plain with systemd", given: "/kubepods/c1", systemd: true, want: "/kubepods/c1"},
		{name: "escape", given: "/../../a", want: "/a"},
		{name: "root", given: "/", bad: true},
		{name: "root by colons", given: ":", bad: true},
		{name: "root by dots", given: "/a/..", bad: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, bySystemd, err := cgroupPath("cid", tc.given, tc.systemd)
			if got != tc.want || bySystemd != tc.bySystemd || errdefs.IsInvalidArgument(err) != tc.bad {
				t.Errorf("cgroupPath = %q, %v, %v", got, bySystemd, err)
			}
		})
	}
}

func FuzzCgroupPath(f *testing.F) {
	for _, s := range []string{"", "/", "a:b:c", "/../..", "::", "a/../../b", "./."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, given string) {
		got, _, err := cgroupPath("cid", given, false)
		if err == nil && (got == "/" || !path.IsAbs(got) || path.Clean(got) != got) {
			t.Errorf("cgroupPath(%q) = %q", given, got)
		}
	})
}

func TestNetSysctl(t *testing.T) {
	for _, tc := range []struct {
		key, want string
		ok        bool
	}{
		{"net.ipv4.ip_forward", "ipv4/ip_forward", true},
		{"net/ipv4/conf/eth0.100/rp_filter", "ipv4/conf/eth0.100/rp_filter", true},
		{"net.ipv4.conf.eth0/100.rp_filter", "ipv4/conf/eth0.100/rp_filter", true},
		{"kernel.msgmax", "", false},
		{"network.x", "", false},
	} {
		if got, ok := netSysctl(tc.key); ok != tc.ok || ok && got != tc.want {
			t.Errorf("netSysctl(%q) = %q, %v, want %q, %v", tc.key, got, ok, tc.want, tc.ok)
		}
	}
}

func TestPrivateNetworkKeepsItsSysctls(t *testing.T) {
	all := map[string]string{"net.ipv4.ip_forward": "1", "kernel.sem": "1 2 3 4"}
	got, err := applySharedSysctls(all, []specs.LinuxNamespace{{Type: specs.NetworkNamespace}})
	if err != nil || !reflect.DeepEqual(got, all) {
		t.Errorf("applySharedSysctls = %v, %v, want all", got, err)
	}
}

func TestWithCgroupNamespace(t *testing.T) {
	pid := specs.LinuxNamespace{Type: specs.PIDNamespace}
	own := specs.LinuxNamespace{Type: specs.CgroupNamespace}
	for _, in := range [][]specs.LinuxNamespace{{pid}, {pid, own}} {
		if got := withCgroupNamespace(in); !reflect.DeepEqual(got, []specs.LinuxNamespace{pid, own}) {
			t.Errorf("withCgroupNamespace(%v) = %v", in, got)
		}
	}
}

func TestConvertRlimits(t *testing.T) {
	for want, name := range rlimitNames() {
		got, err := convertRlimits([]specs.POSIXRlimit{{Type: name, Soft: 1, Hard: 2}})
		if err != nil || got[0].Type != want || got[0].Soft != 1 || got[0].Hard != 2 {
			t.Errorf("convertRlimits(%s) = %v, %v, want type %d", name, got, err, want)
		}
	}
	for _, name := range []string{"", "RLIMIT_X", "rlimit_cpu"} {
		if _, err := convertRlimits([]specs.POSIXRlimit{{Type: name}}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("convertRlimits(%q) = %v, want invalid argument", name, err)
		}
	}
}

func TestMergeResources(t *testing.T) {
	n := func(v int64) *int64 { return &v }
	base := &specs.LinuxResources{
		Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "r"}},
		Memory:  &specs.LinuxMemory{Limit: n(1), Swap: n(2)},
		CPU:     &specs.LinuxCPU{Quota: n(3), Cpus: "0-1"},
		Unified: map[string]string{"a": "1", "b": "2"},
	}
	before := *base.Memory
	got := mergeResources(base, &specs.LinuxResources{
		Memory:  &specs.LinuxMemory{Limit: n(10)},
		CPU:     &specs.LinuxCPU{Mems: "0"},
		Pids:    &specs.LinuxPids{Limit: n(5)},
		Unified: map[string]string{"b": "3"},
	})
	want := &specs.LinuxResources{
		Devices: base.Devices,
		Memory:  &specs.LinuxMemory{Limit: n(10), Swap: n(2)},
		CPU:     &specs.LinuxCPU{Quota: n(3), Cpus: "0-1", Mems: "0"},
		Pids:    &specs.LinuxPids{Limit: n(5)},
		Unified: map[string]string{"a": "1", "b": "3"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("mergeResources = %+v, want %+v", got, want)
	}
	if !reflect.DeepEqual(*base.Memory, before) || base.Unified["b"] != "2" {
		t.Error("the base was changed")
	}
	if got := mergeResources(nil, want); got != want {
		t.Error("an update without a base is not taken as it is")
	}
}

func TestBlkIOv2(t *testing.T) {
	got := blkIOv2(cgroups.BlkioStats{
		IoServiceBytesRecursive: []cgroups.BlkioStatEntry{{Major: 8, Op: "Read", Value: 1}, {Major: 8, Op: "Write", Value: 2}},
		IoServicedRecursive:     []cgroups.BlkioStatEntry{{Major: 8, Op: "Read", Value: 3}, {Major: 8, Op: "Write", Value: 4}},
	})
	want := BlkIOStats{ServiceBytes: []BlkIOEntry{
		{Major: 8, Op: "read", Value: 1}, {Major: 8, Op: "write", Value: 2},
		{Major: 8, Op: "rios", Value: 3}, {Major: 8, Op: "wios", Value: 4},
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("blkIOv2 = %+v, want %+v", got, want)
	}
}

// The kernel tells of memory kills under v2 by changing a file, which an
// ordinary file does as well.
func TestWatchOOMv2(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "memory.events")
	set := func(kills string) {
		t.Helper()
		if err := os.WriteFile(file, []byte("low 0\nmax 7\noom 1\noom_kill "+kills+"\noom_group_kill 0\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	set("0")
	found := make(chan struct{})
	stop, err := watchOOMv2(dir, func() { close(found) })
	if err != nil {
		t.Fatal(err)
	}
	set("0")
	select {
	case <-found:
		t.Fatal("reported without a kill")
	default:
	}
	set("1")
	select {
	case <-found:
	case <-time.After(10 * time.Second):
		t.Fatal("no report of the kill")
	}
	stop()
	stop()

	stop, err = watchOOMv2(dir, func() { t.Error("reported after stop") })
	if err != nil {
		t.Fatal(err)
	}
	stop()
	set("2")
	if _, err := watchOOMv2(t.TempDir(), nil); err == nil {
		t.Error("watching nothing succeeded")
	}
}

// A reader whose ctx has ended must not sit out the drain window: what it read
// meanwhile would go to a caller that is gone.
func TestExitLeavesCancelledReaderAlone(t *testing.T) {
	ends, err := openPipes(0)
	if err != nil {
		t.Fatal(err)
	}
	defer ends.close()
	o := newOutput(ends.ours[1], 1)
	o.cancel()
	o.exit(5 * time.Second)
	began := time.Now()
	_, err = o.file.Read(make([]byte, 1))
	if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) > 4*time.Second {
		t.Errorf("read = %v after %v, want the deadline of the cancellation", err, time.Since(began))
	}
}
