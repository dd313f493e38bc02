package container_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/coffer-cc/coffer/agent/container"
)

// lab is a place for real containers.
type lab struct {
	driver *container.Libcontainer
	rootfs string
	cgroup string // parent of all their cgroups
}

var (
	labs   atomic.Int64
	warmUp sync.Once
)

func needLab(t testing.TB) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("real containers need root")
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("real containers need a static /bin/busybox: ", err)
	}
	l := &lab{
		driver: container.NewLibcontainer(container.LibcontainerOptions{StateRoot: t.TempDir()}),
		rootfs: t.TempDir(),
		cgroup: fmt.Sprintf("/coffer-test-%d-%d", os.Getpid(), labs.Add(1)),
	}
	for _, dir := range []string{"bin", "etc", "proc", "sys", "dev", "tmp"} {
		if err := os.Mkdir(filepath.Join(l.rootfs, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	l.write(t, "bin/busybox", string(busybox), 0o755)
	for _, name := range strings.Fields("sh cat sleep seq true false echo grep tty stty yes id env dd head ps kill mount sysctl") {
		if err := os.Symlink("busybox", filepath.Join(l.rootfs, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	l.write(t, "etc/passwd", "root:x:0:0::/root:/bin/sh\nu:x:1000:1000::/home/u:/bin/sh\n", 0o644)
	warmUp.Do(func() { l.output(t, shell("true"), nil) }) // libcontainer keeps a few files for ever
	before := mounts(t)
	t.Cleanup(func() {
		l.removeCgroups(t)
		if after := mounts(t); after != before {
			t.Errorf("mounts changed:\n%s\nwere:\n%s", after, before)
		}
	})
	return l
}

func (l *lab) write(t testing.TB, name, content string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(l.rootfs, name), []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}

func mounts(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// cgroupDirs lists the cgroups below the lab's parent, the parent left out.
func (l *lab) cgroupDirs(t testing.TB) []string {
	t.Helper()
	parents, err := filepath.Glob("/sys/fs/cgroup/*" + l.cgroup)
	if err != nil {
		t.Fatal(err)
	}
	var dirs []string
	for _, parent := range append(parents, "/sys/fs/cgroup"+l.cgroup) {
		filepath.WalkDir(parent, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() && path != parent {
				dirs = append(dirs, path)
			}
			return nil
		})
	}
	return dirs
}

// removeCgroups removes the parent, which belongs to the pod and not to a
// container, and fails the test when a container's cgroup is left.
func (l *lab) removeCgroups(t testing.TB) {
	t.Helper()
	if dirs := l.cgroupDirs(t); len(dirs) > 0 {
		t.Errorf("cgroups left: %s", dirs)
	}
	parents, _ := filepath.Glob("/sys/fs/cgroup/*" + l.cgroup)
	for _, parent := range append(parents, "/sys/fs/cgroup"+l.cgroup) {
		os.Remove(parent)
	}
}

// spec is what a shim sends for a container, after the sandbox's edits.
func (l *lab) spec(id string, p *specs.Process) *specs.Spec {
	all := []string{"CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_NET_RAW"}
	if p.Capabilities == nil {
		p.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
	}
	return &specs.Spec{
		Version:  "1.0.2",
		Process:  p,
		Root:     &specs.Root{Path: l.rootfs},
		Hostname: id,
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: l.cgroup + "/" + id,
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.MountNamespace}, {Type: specs.PIDNamespace},
				{Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
			},
			MaskedPaths:   []string{"/proc/kcore", "/sys/firmware"},
			ReadonlyPaths: []string{"/proc/sys"},
		},
	}
}

func (l *lab) run(t testing.TB, id string, p *specs.Process, edit func(*specs.Spec)) *container.Container {
	t.Helper()
	spec := l.spec(id, p)
	if edit != nil {
		edit(spec)
	}
	c, err := container.New(patient(t), l.driver, id, spec, container.Options{})
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	t.Cleanup(func() {
		if err := c.Destroy(patient(t)); err != nil {
			t.Errorf("Destroy: %v", err)
		}
	})
	return c
}

// output runs a container to its end and returns what it printed.
func (l *lab) output(t testing.TB, p *specs.Process, edit func(*specs.Spec)) string {
	t.Helper()
	c := l.run(t, "out", p, edit)
	init := start(t, c)
	out := readAll(t, init.ReadStdout, 4096)
	out = append(out, readAll(t, init.ReadStderr, 4096)...)
	if _, err := init.Wait(patient(t)); err != nil {
		t.Fatal(err)
	}
	if err := c.Destroy(patient(t)); err != nil {
		t.Fatal(err)
	}
	return string(out)
}
