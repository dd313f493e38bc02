package vmtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

// TestSystemdInContainer runs systemd as the first process of a container, as
// people do who bring whole machines. It makes cgroups of its own below the
// container's, whose root then takes no processes, and an exec has to find a
// place all the same.
func TestSystemdInContainer(t *testing.T) {
	ownMachine(t)
	c := sharedConfig(t)
	root := filepath.Join(c.Shares[0].Path, "systemd", "rootfs")
	if err := os.RemoveAll(root); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(filepath.Dir(root)) })
	debianRoot(t, root, "systemd", "busybox-static")
	if err := os.Symlink("busybox", filepath.Join(root, "usr/bin/sh")); err != nil && !os.IsExist(err) {
		t.Fatal(err)
	}
	c.Memory = 768 // systemd and its journal
	g := Boot(t, c)
	g.createSandbox(t, "pod")
	spec := containerSpec("machine", "/usr/lib/systemd/systemd", "--unit=basic.target")
	spec.Root.Path = sharedDir + "systemd/rootfs"
	spec.Process.NoNewPrivileges = false
	spec.Process.Env = []string{"container=oci", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	caps := spec.Process.Capabilities
	more := append(caps.Bounding, "CAP_SYS_ADMIN", "CAP_SETPCAP", "CAP_SYS_CHROOT", "CAP_AUDIT_WRITE", "CAP_NET_BIND_SERVICE")
	caps.Bounding, caps.Effective, caps.Permitted = more, more, more
	for _, dir := range []string{"/run", "/tmp", "/var"} {
		spec.Mounts = append(spec.Mounts, &agentpb.Mount{Destination: dir, Source: "tmpfs", Type: "tmpfs", Options: []string{"nosuid", "nodev", "mode=755"}})
	}
	spec.Mounts = append(spec.Mounts, &agentpb.Mount{Destination: "/sys/fs/cgroup", Source: "cgroup", Type: "cgroup", Options: []string{"nosuid", "noexec", "nodev"}})
	g.start(t, "machine", spec)
	out, _ := g.exec(t, "machine", `until s=$(systemctl is-system-running); [ "$s" = running ] || [ "$s" = degraded ]; do echo .; busybox sleep 1; done
echo state $s; busybox cat /proc/1/cgroup /proc/self/cgroup; cd /sys/fs/cgroup; for s in system.slice/*.service; do echo $s $(busybox cat $s/cgroup.procs); done; busybox cat cgroup.subtree_control`)
	t.Logf("the machine in the container says\n%s", strings.ReplaceAll(out, ".\n", ""))
	for _, want := range []string{"0::/init.scope\n0::/init.scope\n", "system.slice/systemd-journald.service ", "memory"} {
		if !strings.Contains(out, want) {
			t.Errorf("want %q in it", want)
		}
	}
	stats := call(t, g.Agent.StatsContainer, &agentpb.StatsContainerRequest{ContainerId: "machine"})
	if stats.GetCgroupStats().GetPidsStats().GetCurrent() < 2 || stats.GetCgroupStats().GetMemoryStats().GetUsage().GetUsage() == 0 {
		t.Errorf("statistics are %v", stats.GetCgroupStats())
	}
	call(t, g.Agent.SignalProcess, &agentpb.SignalProcessRequest{ContainerId: "machine", Signal: uint32(unix.SIGKILL)})
	if code := g.wait(t, "machine"); code != 128+9 {
		t.Errorf("ended with %d", code)
	}
}
