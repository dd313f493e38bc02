package container_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// without takes the mounts at some places out of a spec.
func without(s *specs.Spec, destinations ...string) {
	s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return slices.Contains(destinations, m.Destination) })
}

// TestRealUserNamespace maps the container's root to a user of the guest that is
// nobody, for init and for what is run later.
func TestRealUserNamespace(t *testing.T) {
	l := needLab(t)
	sameFiles(t)
	if err := os.Chmod(l.rootfs, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(l.rootfs+"/..", 0o755); err != nil {
		t.Fatal(err)
	}
	c := l.run(t, "user", shell("id -u; cat /proc/self/uid_map; echo x >/dev/null && echo ok; read line"), func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
		s.Linux.GIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 200000, Size: 65536}}
		without(s, "/sys", "/sys/fs/cgroup") // the kernel gives a user namespace no sysfs of another network
	})
	p := start(t, c)
	until(t, p.ReadStdout, "0\n         0     100000      65536\nok\n")
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid()))
	if err != nil || !strings.Contains(string(status), "Uid:\t100000\t") || !strings.Contains(string(status), "Gid:\t200000\t") {
		t.Errorf("the guest sees %v %s", err, status)
	}
	if err := c.Exec(patient(t), "e", shell("id -u; id -g; cat /proc/self/gid_map")); err != nil {
		t.Fatal(err)
	}
	until(t, process(t, c, "e").ReadStdout, "0\n0\n         0     200000      65536\n")
	p.WriteStdin(patient(t), []byte("\n"))
	wait(t, p, 0)
}

// TestRealNamespaces counts what the container has for itself, and what it
// shares with the guest because its spec does not list it.
func TestRealNamespaces(t *testing.T) {
	l := needLab(t)
	all := []string{"ipc", "mnt", "net", "pid", "user", "uts", "cgroup"}
	ours := map[string]string{}
	for _, kind := range all {
		ours[kind], _ = os.Readlink("/proc/self/ns/" + kind)
	}
	script := "for n in " + strings.Join(all, " ") + "; do busybox readlink /proc/self/ns/$n; done; busybox hostname; busybox ls /sys/class/net"
	got := strings.Fields(l.output(t, shell(script), func(s *specs.Spec) {
		s.Hostname = "inside"
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace}, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}))
	if len(got) < len(all)+2 {
		t.Fatalf("printed %q", got)
	}
	for i, kind := range all {
		if shared := kind == "user"; (got[i] == ours[kind]) != shared {
			t.Errorf("%s namespace is %s, the guest's is %s", kind, got[i], ours[kind])
		}
	}
	if rest := strings.Join(got[len(all):], " "); rest != "inside lo" {
		t.Errorf("hostname and interfaces are %q", rest)
	}
}

// TestRealJoinedNamespaces puts a container and an exec into namespaces that
// another one has.
func TestRealJoinedNamespaces(t *testing.T) {
	l := needLab(t)
	first := l.run(t, "first", shell("exec sleep 100"), func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace})
	})
	start(t, first)
	path := func(kind string) string { return fmt.Sprintf("/proc/%d/ns/%s", first.InitPid(), kind) }
	var want strings.Builder
	for _, kind := range []string{"ipc", "uts", "pid", "net"} {
		ns, err := os.Readlink(path(kind))
		if err != nil {
			t.Fatal(err)
		}
		want.WriteString(ns + "\n")
	}
	script := "for n in ipc uts pid net; do busybox readlink /proc/self/ns/$n; done"
	second := l.run(t, "second", shell(script+"; read line"), func(s *specs.Spec) {
		s.Hostname = ""
		s.Linux.Namespaces = []specs.LinuxNamespace{
			{Type: specs.MountNamespace}, {Type: specs.IPCNamespace, Path: path("ipc")}, {Type: specs.UTSNamespace, Path: path("uts")},
			{Type: specs.PIDNamespace, Path: path("pid")}, {Type: specs.NetworkNamespace, Path: path("net")},
		}
	})
	until(t, start(t, second).ReadStdout, want.String())
	if err := second.Exec(patient(t), "e", shell(script)); err != nil {
		t.Fatal(err)
	}
	if got := string(readAll(t, process(t, second, "e").ReadStdout, 4096)); got != want.String() {
		t.Errorf("an exec is in %q, want %q", got, want.String())
	}
}

// TestRealOOMScore is about who dies first. The agent's own score must not come
// with a container that asks for none.
func TestRealOOMScore(t *testing.T) {
	l := needLab(t)
	const file = "/proc/self/oom_score_adj"
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("300"), 0); err != nil {
		t.Fatal(err)
	}
	defer os.WriteFile(file, old, 0)
	for _, tc := range []struct {
		adj  *int
		want string
	}{{nil, "0\n"}, {ptr(321), "321\n"}} {
		c := l.run(t, "score", shell("cat "+file+"; exec sleep 100"), func(s *specs.Spec) { s.Process.OOMScoreAdj = tc.adj })
		until(t, start(t, c).ReadStdout, tc.want)
		if err := c.Exec(patient(t), "e", shell("cat "+file)); err != nil {
			t.Fatal(err)
		}
		if got := string(readAll(t, process(t, c, "e").ReadStdout, 100)); got != tc.want {
			t.Errorf("an exec has %q, want %q", got, tc.want)
		}
		if err := c.Destroy(patient(t)); err != nil {
			t.Fatal(err)
		}
	}
}
