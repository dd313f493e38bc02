package wire

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

// minimal is the least that converts.
func minimal() *agentpb.Spec {
	return &agentpb.Spec{Process: &agentpb.Process{}, Root: &agentpb.Root{Path: "/r"}, Linux: &agentpb.Linux{}}
}

// TestSpecRefuses changes one thing of a good spec and looks for the field's
// name in the error.
func TestSpecRefuses(t *testing.T) {
	tests := []struct {
		name string
		bend func(*agentpb.Spec)
		want string
	}{
		{"no process", func(s *agentpb.Spec) { s.Process = nil }, "OCI.Process: is missing"},
		{"no root", func(s *agentpb.Spec) { s.Root = nil }, "OCI.Root: is missing"},
		{"no linux", func(s *agentpb.Spec) { s.Linux = nil }, "OCI.Linux: is missing"},
		{"unknown limit", func(s *agentpb.Spec) {
			s.Process.Rlimits = []*agentpb.POSIXRlimit{{Type: "RLIMIT_NOFILE"}, {Type: "RLIMIT_FUN"}}
		}, "OCI.Process.Rlimits[1].Type"},
		{"score out of range", func(s *agentpb.Spec) { s.Process.OOMScoreAdj = 1001 }, "OCI.Process.OOMScoreAdj"},
		{"unknown namespace", func(s *agentpb.Spec) {
			s.Linux.Namespaces = []*agentpb.LinuxNamespace{{Type: "moon"}}
		}, "OCI.Linux.Namespaces[0].Type"},
		{"unknown device", func(s *agentpb.Spec) {
			s.Linux.Devices = []*agentpb.LinuxDevice{{Type: "x"}}
		}, "OCI.Linux.Devices[0].Type"},
		{"device rule", func(s *agentpb.Spec) {
			s.Linux.Resources = &agentpb.LinuxResources{Devices: []*agentpb.LinuxDeviceCgroup{{Type: "q"}}}
		}, "OCI.Linux.Resources.Devices[0].Type"},
		{"propagation", func(s *agentpb.Spec) { s.Linux.RootfsPropagation = "up" }, "OCI.Linux.RootfsPropagation"},
		{"cgroup path", func(s *agentpb.Spec) { s.Linux.CgroupsPath = "/a/../../b" }, "OCI.Linux.CgroupsPath"},
		{"memory", func(s *agentpb.Spec) {
			s.Linux.Resources = &agentpb.LinuxResources{Memory: &agentpb.LinuxMemory{Swap: -2}}
		}, "OCI.Linux.Resources.Memory"},
		{"quota", func(s *agentpb.Spec) {
			s.Linux.Resources = &agentpb.LinuxResources{CPU: &agentpb.LinuxCPU{Quota: -2}}
		}, "OCI.Linux.Resources.CPU"},
		{"weight", func(s *agentpb.Spec) {
			s.Linux.Resources = &agentpb.LinuxResources{BlockIO: &agentpb.LinuxBlockIO{Weight: 1 << 16}}
		}, "OCI.Linux.Resources.BlockIO"},
		{"default action", func(s *agentpb.Spec) {
			s.Linux.Seccomp = &agentpb.LinuxSeccomp{DefaultAction: "SCMP_ACT_NOTIFY"}
		}, "OCI.Linux.Seccomp.DefaultAction"},
		{"architecture", func(s *agentpb.Spec) {
			s.Linux.Seccomp = &agentpb.LinuxSeccomp{DefaultAction: "SCMP_ACT_ALLOW", Architectures: []string{"Z80"}}
		}, "OCI.Linux.Seccomp.Architectures[0]"},
		{"flag", func(s *agentpb.Spec) {
			s.Linux.Seccomp = &agentpb.LinuxSeccomp{DefaultAction: "SCMP_ACT_ALLOW", Flags: []string{"x"}}
		}, "OCI.Linux.Seccomp.Flags[0]"},
		{"operator", func(s *agentpb.Spec) {
			s.Linux.Seccomp = &agentpb.LinuxSeccomp{DefaultAction: "SCMP_ACT_ALLOW", Syscalls: []*agentpb.LinuxSyscall{
				{Action: "SCMP_ACT_ERRNO", Args: []*agentpb.LinuxSeccompArg{{Op: "?"}}},
			}}
		}, "OCI.Linux.Seccomp.Syscalls[0].Args[0].Op"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := minimal()
			tt.bend(m)
			_, err := Spec(m)
			if !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an invalid argument that names %s", err, tt.want)
			}
		})
	}
}

func mustSpec(t *testing.T, bend func(*agentpb.Spec)) *specs.Spec {
	t.Helper()
	m := minimal()
	bend(m)
	s, err := Spec(m)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSpecNil(t *testing.T) {
	if _, err := Spec(nil); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("got %v", err)
	}
	if _, err := Process(nil); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("got %v", err)
	}
}

func TestCapabilities(t *testing.T) {
	init := mustSpec(t, func(*agentpb.Spec) {})
	if c := init.Process.Capabilities; c == nil || len(c.Bounding) != 0 {
		t.Errorf("init without capabilities: got %v, want none", c)
	}
	exec, err := Process(&agentpb.Process{})
	if err != nil || exec.Capabilities != nil {
		t.Errorf("exec without capabilities: got %v (%v), want nil to inherit", exec.Capabilities, err)
	}
	s := mustSpec(t, func(s *agentpb.Spec) {
		s.Process.Capabilities = &agentpb.LinuxCapabilities{Bounding: []string{"CAP_KILL", `"CAP_CHOWN"`, "sys_admin", "CAP_NEW"}}
	})
	want := []string{"CAP_KILL", "CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_NEW"}
	if got := s.Process.Capabilities.Bounding; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAbsentMeansNotSet(t *testing.T) {
	s := mustSpec(t, func(s *agentpb.Spec) {
		s.Process.ApparmorProfile = "host-profile"
		s.Linux.Resources = &agentpb.LinuxResources{
			Memory: &agentpb.LinuxMemory{}, CPU: &agentpb.LinuxCPU{}, Pids: &agentpb.LinuxPids{},
		}
	})
	if s.Mounts != nil || s.Linux.Namespaces != nil || s.Process.OOMScoreAdj != nil || s.Process.ApparmorProfile != "" {
		t.Errorf("something was invented: %+v", s)
	}
	r := s.Linux.Resources
	if !reflect.DeepEqual(r.Memory, &specs.LinuxMemory{}) || !reflect.DeepEqual(r.CPU, &specs.LinuxCPU{}) || r.Pids != nil {
		t.Errorf("limits were invented: %+v", r)
	}
}

func TestUnlimitedSurvives(t *testing.T) {
	r, err := Resources(&agentpb.LinuxResources{
		Memory: &agentpb.LinuxMemory{Limit: -1, Swap: -1},
		CPU:    &agentpb.LinuxCPU{Quota: -1},
		Pids:   &agentpb.LinuxPids{Limit: -1},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]*int64{
		"limit": r.Memory.Limit, "swap": r.Memory.Swap, "quota": r.CPU.Quota, "pids": r.Pids.Limit,
	} {
		if p == nil || *p != -1 {
			t.Errorf("%s: -1 was lost", name)
		}
	}
	if r, err := Resources(nil); r != nil || err != nil {
		t.Errorf("nil: got %v, %v", r, err)
	}
}

func TestDeviceRules(t *testing.T) {
	r, err := Resources(&agentpb.LinuxResources{Devices: []*agentpb.LinuxDeviceCgroup{
		{Type: "b", Major: 8, Minor: 0},
		{Type: "c", Major: -1, Minor: -1},
		{Access: "rwm"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if d := r.Devices[0]; d.Major == nil || *d.Major != 8 || d.Minor == nil || *d.Minor != 0 {
		t.Errorf("8:0 became a wildcard: %+v", d)
	}
	if d := r.Devices[1]; d.Major != nil || d.Minor != nil {
		t.Errorf("-1 is not a wildcard: %+v", d)
	}
	if d := r.Devices[2]; d.Type != "a" || d.Major != nil || d.Minor != nil {
		t.Errorf("a rule without kind does not cover all: %+v", d)
	}
}

func TestDeviceMode(t *testing.T) {
	s := mustSpec(t, func(s *agentpb.Spec) {
		s.Linux.Devices = []*agentpb.LinuxDevice{{Path: "/dev/a", Type: "c"}, {Path: "/dev/b", Type: "b", FileMode: 0o60600}}
	})
	for i, want := range []uint32{0o666, 0o600} {
		if d := s.Linux.Devices[i]; uint32(*d.FileMode) != want || d.UID == nil || d.GID == nil {
			t.Errorf("%s: mode %o, want %o", d.Path, uint32(*d.FileMode), want)
		}
	}
}

func TestSeccompErrno(t *testing.T) {
	s := mustSpec(t, func(s *agentpb.Spec) {
		s.Linux.Seccomp = &agentpb.LinuxSeccomp{DefaultAction: "SCMP_ACT_ERRNO", Syscalls: []*agentpb.LinuxSyscall{
			{Action: "SCMP_ACT_ERRNO"},
			{Action: "SCMP_ACT_ERRNO", ErrnoRet: &agentpb.LinuxSyscall_Errnoret{Errnoret: 38}},
			{Action: "SCMP_ACT_ALLOW"},
		}}
	}).Linux.Seccomp
	if s.DefaultErrnoRet == nil || *s.DefaultErrnoRet != 1 {
		t.Errorf("default errno: got %v, want EPERM", s.DefaultErrnoRet)
	}
	if e := s.Syscalls[0].ErrnoRet; e == nil || *e != 1 {
		t.Errorf("absent errno: got %v, want EPERM", e)
	}
	if e := s.Syscalls[1].ErrnoRet; e == nil || *e != 38 {
		t.Errorf("errno 38: got %v", e)
	}
	if e := s.Syscalls[2].ErrnoRet; e != nil {
		t.Errorf("allowed call: got errno %d", *e)
	}
}

func TestHooksKeepTheirPlace(t *testing.T) {
	h := func(p string) []*agentpb.Hook { return []*agentpb.Hook{{Path: p}} }
	s := mustSpec(t, func(s *agentpb.Spec) {
		s.Hooks = &agentpb.Hooks{
			Prestart: h("/1"), Poststart: h("/2"), Poststop: []*agentpb.Hook{{Path: "/3", Timeout: 7}},
			CreateRuntime: h("/4"), CreateContainer: h("/5"), StartContainer: h("/6"),
		}
	})
	for want, got := range map[string][]specs.Hook{
		"/1": s.Hooks.Prestart, "/2": s.Hooks.Poststart, "/3": s.Hooks.Poststop,
		"/4": s.Hooks.CreateRuntime, "/5": s.Hooks.CreateContainer, "/6": s.Hooks.StartContainer,
	} {
		if len(got) != 1 || got[0].Path != want {
			t.Errorf("got %v, want %s", got, want)
		}
	}
	if s.Hooks.Prestart[0].Timeout != nil || *s.Hooks.Poststop[0].Timeout != 7 {
		t.Error("timeouts: absent must stay absent, 7 must stay 7")
	}
}

func FuzzSpec(f *testing.F) {
	for _, m := range requests(f) {
		if c, ok := m.(*agentpb.CreateContainerRequest); ok {
			raw, err := proto.Marshal(c.OCI)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(raw)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var m agentpb.Spec
		if proto.Unmarshal(raw, &m) != nil {
			return
		}
		s, err := Spec(&m)
		if err != nil {
			if !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("class of error: %v", err)
			}
			return
		}
		again, err := Spec(SpecMessage(s))
		if err != nil || !reflect.DeepEqual(s, again) {
			t.Errorf("changes when it goes to the wire and back (%v)", err)
		}
	})
}
