package container_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/coffer-cc/coffer/agent/container"
)

// TestRealWorkingDirectory holds a descriptor of the guest open and asks for a
// working directory behind it, the way of CVE-2024-21626.
func TestRealWorkingDirectory(t *testing.T) {
	l := needLab(t)
	leak, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer leak.Close()
	if err := os.Symlink(fmt.Sprintf("/proc/self/fd/%d", leak.Fd()), filepath.Join(l.rootfs, "link")); err != nil {
		t.Fatal(err)
	}
	c := l.run(t, "cwd", shell("exec sleep 100"), nil)
	start(t, c)
	dirs := []string{"/link", "/link/etc", "/proc/self/fd/../cwd/../../.."}
	for fd := 3; fd < 16; fd++ {
		dirs = append(dirs, fmt.Sprintf("/proc/self/fd/%d", fd))
	}
	for _, dir := range dirs {
		p := &specs.Process{Args: []string{"/bin/sh", "-c", "busybox ls; pwd"}, Env: []string{"PATH=/bin"}, Cwd: dir}
		out := ""
		if c.Exec(patient(t), "e", p) == nil {
			e := process(t, c, "e")
			out = string(readAll(t, e.ReadStdout, 4096))
			e.Wait(patient(t))
		}
		spec := l.spec("other", p)
		if other, err := container.New(patient(t), l.driver, "other", spec, container.Options{}); err == nil {
			init := start(t, other)
			out += string(readAll(t, init.ReadStdout, 4096))
			if err := other.Destroy(patient(t)); err != nil {
				t.Error(err)
			}
		}
		if strings.Contains(out, "boot") || strings.Contains(out, "root\n") || strings.Contains(out, "unreachable") {
			t.Errorf("%s leads out: %q", dir, out)
		}
	}
}

func TestRealCapabilities(t *testing.T) {
	l := needLab(t)
	const show = "grep Cap /proc/self/status"
	lines := func(inh, prm, eff, bnd, amb string) string {
		return fmt.Sprintf("CapInh:\t%016s\nCapPrm:\t%016s\nCapEff:\t%016s\nCapBnd:\t%016s\nCapAmb:\t%016s\n", inh, prm, eff, bnd, amb)
	}
	chown, kill := []string{"CAP_CHOWN"}, []string{"CAP_CHOWN", "CAP_KILL"}
	for _, tc := range []struct {
		name string
		edit func(*specs.Spec)
		want string
	}{
		{"each set for itself", func(s *specs.Spec) {
			s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: kill, Permitted: kill, Effective: chown}
		}, lines("0", "21", "21", "21", "0")}, // root: execve raises all of the bounding set
		{"of a user only the ambient ones last", func(s *specs.Spec) {
			s.Process.User.UID = 1000
			s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: kill, Permitted: kill, Effective: kill, Inheritable: chown, Ambient: chown}
		}, lines("1", "1", "1", "21", "1")},
		{"without ambient ones a user has none", func(s *specs.Spec) { s.Process.User.UID = 1000; caps(s, kill...) }, lines("0", "0", "0", "21", "0")},
		{"a name of a later kernel is left out", func(s *specs.Spec) { caps(s, "CAP_CHOWN", "CAP_OF_THE_FUTURE") }, lines("0", "1", "1", "1", "0")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := l.output(t, shell(show), tc.edit); got != tc.want {
				t.Errorf("printed %q, want %q", got, tc.want)
			}
		})
	}
}

// TestRealExecCapabilities is what the Go shim relies on: its execs come
// without capabilities.
func TestRealExecCapabilities(t *testing.T) {
	l := needLab(t)
	c := l.run(t, "exec", shell("exec sleep 100"), func(s *specs.Spec) { caps(s, "CAP_CHOWN", "CAP_KILL") })
	start(t, c)
	for i, tc := range []struct {
		name string
		caps *specs.LinuxCapabilities
		want string
	}{
		{"inherited", nil, "CapBnd:\t0000000000000021\n"},
		{"fewer", &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}, Effective: []string{"CAP_KILL"}, Permitted: []string{"CAP_KILL"}}, "CapBnd:\t0000000000000020\n"},
		{"none", &specs.LinuxCapabilities{}, "CapBnd:\t0000000000000000\n"},
	} {
		p := shell("grep CapBnd /proc/self/status")
		p.Capabilities = tc.caps
		id := fmt.Sprint("e", i)
		if err := c.Exec(patient(t), id, p); err != nil {
			t.Fatal(err)
		}
		if got := string(readAll(t, process(t, c, id).ReadStdout, 100)); got != tc.want {
			t.Errorf("%s: printed %q, want %q", tc.name, got, tc.want)
		}
	}
}

// TestRealSeccompRules asks for errnos and for filters with and without the bit
// that keeps privileges from growing, which decides when a filter is loaded.
func TestRealSeccompRules(t *testing.T) {
	l := needLab(t)
	enosys := uint(38)
	filter := func(rules ...specs.LinuxSyscall) *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86}, Syscalls: rules}
	}
	kill := []string{"kill"}
	for _, tc := range []struct {
		name   string
		filter *specs.LinuxSeccomp
		run    string
		want   string
	}{
		{"errno by default", filter(specs.LinuxSyscall{Names: kill, Action: specs.ActErrno}), "kill -0 1; echo $?", "Operation not permitted\n1\n"},
		{"errno of the rule", filter(specs.LinuxSyscall{Names: kill, Action: specs.ActErrno, ErrnoRet: &enosys}), "kill -0 1; echo $?", "Function not implemented\n1\n"},
		{"by argument", filter(specs.LinuxSyscall{Names: kill, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Index: 1, Value: 10, Op: specs.OpEqualTo}}}),
			"kill -0 1; echo $?; kill -10 1", "0\nOperation not permitted\n"},
		{"kill", filter(specs.LinuxSyscall{Names: []string{"umask"}, Action: specs.ActKillProcess}), "busybox sh -c 'umask 0'; echo $?", "Bad system call\n159\n"},
		{"calls nobody knows", filter(specs.LinuxSyscall{Names: []string{"no_such_call", "kill"}, Action: specs.ActErrno}), "kill -0 1; echo $?", "Operation not permitted\n1\n"},
	} {
		for _, nnp := range []bool{false, true} {
			t.Run(fmt.Sprint(tc.name, " ", nnp), func(t *testing.T) {
				p := shell("exec 2>&1; " + tc.run)
				p.NoNewPrivileges = nnp
				out := l.output(t, p, func(s *specs.Spec) { s.Linux.Seccomp = tc.filter })
				var got strings.Builder // without the shell's own words before the reason
				for line := range strings.Lines(out) {
					got.WriteString(line[strings.LastIndex(line, ": ")+1:])
				}
				if trimmed := strings.ReplaceAll(got.String(), " O", "O"); strings.TrimSpace(strings.ReplaceAll(trimmed, " F", "F")) != strings.TrimSpace(tc.want) {
					t.Errorf("printed %q, want %q", out, tc.want)
				}
			})
		}
	}
}

func TestRealSysctls(t *testing.T) {
	l := needLab(t)
	got := l.output(t, shell("cd /proc/sys; cat kernel/shmmni kernel/sem kernel/domainname fs/mqueue/msg_max; cat kernel.no 2>/dev/null; echo end"), func(s *specs.Spec) {
		s.Linux.Sysctl = map[string]string{
			"kernel.shmmni": "77", "kernel.sem": "250\t32000\t100\t64", "kernel.domainname": "example.org", "fs.mqueue.msg_max": "11",
		}
	})
	if want := "77\n250\t32000\t100\t64\nexample.org\n11\nend\n"; got != want {
		t.Errorf("printed %q, want %q", got, want)
	}
	for _, key := range []string{"kernel.panic", "vm.swappiness", "kernel.hostname", "fs.file-max", "kernel.shm_rmid_forced/../panic"} {
		spec := l.spec("sysctl", shell("true"))
		spec.Linux.Sysctl = map[string]string{key: "1"}
		if _, err := container.New(patient(t), l.driver, "sysctl", spec, container.Options{}); err == nil {
			t.Errorf("%s was set", key)
		}
	}
}

// TestRealLabels has labels of security modules that this kernel does not have:
// a container or program that asks for one is refused.
func TestRealLabels(t *testing.T) {
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err == nil {
		t.Skip("this kernel has SELinux: a label could be applied")
	}
	l := needLab(t)
	const label = "system_u:system_r:container_t:s0:c1,c2"
	spec := l.spec("label", shell("true"))
	spec.Process.SelinuxLabel = label
	if _, err := container.New(patient(t), l.driver, "label", spec, container.Options{}); err == nil || !errdefs.IsFailedPrecondition(err) {
		t.Errorf("a container with a label: %v", err)
	}
	spec = l.spec("label", shell("true"))
	spec.Linux.MountLabel = label
	if _, err := container.New(patient(t), l.driver, "label", spec, container.Options{}); err == nil || !errdefs.IsFailedPrecondition(err) {
		t.Errorf("a container with a label for mounts: %v", err)
	}
	c := l.run(t, "label", shell("exec sleep 100"), nil)
	start(t, c)
	p := shell("true")
	p.SelinuxLabel = label
	if err := c.Exec(patient(t), "e", p); err == nil || !errdefs.IsFailedPrecondition(err) {
		t.Errorf("a program with a label: %v", err)
	}
}

// TestRealHugePageLimits has a limit for each size of the host's huge pages, as
// Kubernetes sends it with every container. The guest may have other sizes, or
// none that a limit can be set for.
func TestRealHugePageLimits(t *testing.T) {
	l := needLab(t)
	limits := []specs.LinuxHugepageLimit{{Pagesize: "2MB"}, {Pagesize: "1GB"}, {Pagesize: "16GB", Limit: 16 << 30}, {Pagesize: "../2MB"}}
	c := l.run(t, "huge", shell("exec sleep 100"), func(s *specs.Spec) {
		s.Linux.Resources = &specs.LinuxResources{HugepageLimits: limits}
	})
	start(t, c)
	if err := c.Update(patient(t), &specs.LinuxResources{HugepageLimits: limits}); err != nil {
		t.Error(err)
	}
}
