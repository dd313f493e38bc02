package vmtest

import (
	"context"
	"testing"
	"time"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

// callTimeout bounds one call; a machine without KVM is slow, not stuck.
const callTimeout = 60 * time.Second

// Where a runtime finds the host's share in the guest, and the one root file
// system on it that all test containers use.
const (
	sharedDir  = "/run/kata-containers/shared/containers/"
	sharedRoot = sharedDir + "busybox/rootfs"
	shareTag   = "kataShared"
)

// call makes one call and fails the test with its error.
func call[Q, R any](t testing.TB, method func(context.Context, Q) (R, error), request Q) R {
	t.Helper()
	ctx, cancel := callContext(t)
	defer cancel()
	reply, err := method(ctx, request)
	if err != nil {
		t.Fatalf("%T: %v", request, err)
	}
	return reply
}

// callContext is for one call; a test's cleanup makes calls too.
func callContext(t testing.TB) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(t.Context()), callTimeout)
}

// createSandbox makes the pod as the Go shim does with a virtio-fs share.
func (g *Guest) createSandbox(t testing.TB, id string) {
	t.Helper()
	call(t, g.Agent.CreateSandbox, &agentpb.CreateSandboxRequest{
		Hostname: "pod", SandboxId: id, Dns: []string{"nameserver 10.0.2.3", ""},
		Storages: []*agentpb.Storage{
			{Driver: "virtio-fs", Source: shareTag, Fstype: "virtiofs", MountPoint: sharedDir},
			{Driver: "ephemeral", Source: "shm", Fstype: "tmpfs", MountPoint: "/run/kata-containers/sandbox/shm",
				Options: []string{"noexec", "nosuid", "nodev", "mode=1777", "size=67108864"}},
		},
	})
}

// containerSpec is the specification of a container that runs a busybox command,
// with what a shim leaves in it.
func containerSpec(id string, args ...string) *agentpb.Spec {
	caps := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID", "CAP_KILL"}
	return &agentpb.Spec{
		Version: "1.3.0",
		Process: &agentpb.Process{
			User: &agentpb.User{}, Args: args, Cwd: "/", Env: []string{"PATH=/bin"}, NoNewPrivileges: true,
			Capabilities: &agentpb.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Root: &agentpb.Root{Path: sharedRoot, Readonly: true},
		Mounts: []*agentpb.Mount{
			{Destination: "/proc", Source: "proc", Type: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Source: "tmpfs", Type: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Source: "devpts", Type: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/dev/shm", Source: "/run/kata-containers/sandbox/shm", Type: "bind", Options: []string{"rbind"}},
			{Destination: "/sys", Source: "sysfs", Type: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		},
		Linux: &agentpb.Linux{
			CgroupsPath: "/vmtest/" + id,
			Resources:   &agentpb.LinuxResources{CPU: &agentpb.LinuxCPU{Shares: 1024}},
			Namespaces:  []*agentpb.LinuxNamespace{{Type: "ipc"}, {Type: "uts"}, {Type: "mount"}},
		},
	}
}

// start creates and starts a container, and removes it with the test.
func (g *Guest) start(t testing.TB, id string, spec *agentpb.Spec, storages ...*agentpb.Storage) {
	t.Helper()
	call(t, g.Agent.CreateContainer, &agentpb.CreateContainerRequest{ContainerId: id, ExecId: id, OCI: spec, Storages: storages})
	t.Cleanup(func() {
		call(t, g.Agent.RemoveContainer, &agentpb.RemoveContainerRequest{ContainerId: id})
	})
	call(t, g.Agent.StartContainer, &agentpb.StartContainerRequest{ContainerId: id})
}

// output reads standard output to its end.
func (g *Guest) output(t testing.TB, id string) string {
	t.Helper()
	var all []byte
	for {
		r := call(t, g.Agent.ReadStdout, &agentpb.ReadStreamRequest{ContainerId: id, ExecId: id, Len: 1 << 20})
		if len(r.Data) == 0 {
			return string(all)
		}
		all = append(all, r.Data...)
	}
}

func (g *Guest) wait(t testing.TB, id string) int32 {
	t.Helper()
	return call(t, g.Agent.WaitProcess, &agentpb.WaitProcessRequest{ContainerId: id, ExecId: id}).Status
}

// run is the life of a container that needs nothing but its arguments: its
// output is returned, and it must end well.
func (g *Guest) run(t testing.TB, id string, args ...string) string {
	t.Helper()
	g.start(t, id, containerSpec(id, args...))
	out := g.output(t, id)
	if code := g.wait(t, id); code != 0 {
		t.Fatalf("%v ended with %d: %s", args, code, out)
	}
	return out
}
