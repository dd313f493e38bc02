package vmtest

import (
	"context"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/coffer-cc/coffer/protos/agentpb"
	"github.com/coffer-cc/coffer/rootfs/vm"
)

func TestServing(t *testing.T) {
	g := Shared(t)
	if r := call(t, g.Health.Check, &agentpb.CheckRequest{}); r.Status != agentpb.HealthCheckResponse_SERVING {
		t.Errorf("health is %v", r.Status)
	}
	if r := call(t, g.Health.Version, &agentpb.CheckRequest{}); r.AgentVersion == "" || r.GrpcVersion == "" {
		t.Errorf("version is %v", r)
	}
	t.Log(g.run(t, "modules", "cat", "/proc/modules"))
}

// TestPodLife is a pod with nothing but the image's own pause program, and
// ends with the machine off.
func TestPodLife(t *testing.T) {
	ownMachine(t)
	g := Boot(t, vm.Config{Words: []string{"cgroup_no_v1=all"}})
	call(t, g.Agent.CreateSandbox, &agentpb.CreateSandboxRequest{SandboxId: "pod", Storages: []*agentpb.Storage{
		{Driver: "ephemeral", Source: "shm", Fstype: "tmpfs", MountPoint: "/run/kata-containers/sandbox/shm"},
	}})
	spec := containerSpec("pod", "/pause")
	spec.Root.Path = "/run/kata-containers/pod/rootfs"
	spec.Annotations = map[string]string{
		"io.katacontainers.pkg.oci.container_type": "pod_sandbox",
		"io.kubernetes.cri.container-type":         "sandbox",
	}
	call(t, g.Agent.CreateContainer, &agentpb.CreateContainerRequest{
		ContainerId: "pod", ExecId: "pod", OCI: spec,
		Storages: []*agentpb.Storage{{
			Driver: "image_guest_pull", Source: "pause", Fstype: "overlay", MountPoint: spec.Root.Path,
			DriverOptions: []string{`image_guest_pull={"metadata":{"io.katacontainers.pkg.oci.container_type":"pod_sandbox","io.kubernetes.cri.container-type":"sandbox"}}`},
		}},
	})
	call(t, g.Agent.StartContainer, &agentpb.StartContainerRequest{ContainerId: "pod"})
	stats := call(t, g.Agent.StatsContainer, &agentpb.StatsContainerRequest{ContainerId: "pod"})
	t.Logf("memory of the pause container: %d bytes", stats.GetCgroupStats().GetMemoryStats().GetUsage().GetUsage())
	call(t, g.Agent.SignalProcess, &agentpb.SignalProcessRequest{ContainerId: "pod", Signal: uint32(unix.SIGKILL)})
	if code := g.wait(t, "pod"); code != 128+9 {
		t.Errorf("the pause program ended with %d, want 137", code)
	}
	call(t, g.Agent.RemoveContainer, &agentpb.RemoveContainerRequest{ContainerId: "pod"})
	call(t, g.Agent.DestroySandbox, &agentpb.DestroySandboxRequest{})
	waitOff(t, g.VM)
}

// TestHostileCommandLine hands PID 1 the words that would make it a container's
// init, or make its runtime print, before any of its code runs.
func TestHostileCommandLine(t *testing.T) {
	ownMachine(t)
	c := sharedConfig(t)
	c.Words = append(c.Words, "_LIBCONTAINER_INITPIPE=0", "_LIBCONTAINER_LOGPIPE=0", "GODEBUG=inittrace=1", "init")
	machine := Start(t, c)
	defer machine.Stop()
	defer showConsole(t, machine)
	ctx, cancel := context.WithTimeout(t.Context(), bootTimeout)
	defer cancel()
	if err := machine.WaitConsole(ctx, readyText); err != nil {
		t.Fatal(err)
	}
	if text := machine.Console(); strings.Contains(text, "init internal/") {
		t.Error("the Go runtime obeyed the command line")
	}
}

// TestBadCommandLine sees the reason on the console and the machine off.
func TestBadCommandLine(t *testing.T) {
	ownMachine(t)
	machine := Start(t, vm.Config{Words: []string{"agent.hotplug_timeout=soon"}})
	defer machine.Stop()
	defer showConsole(t, machine)
	waitOff(t, machine)
	if text := machine.Console(); !strings.Contains(text, "hotplug_timeout") {
		t.Error("the console does not name the bad value")
	}
}

// TestAgentDies kills everything but PID 1, by the kernel's own key.
func TestAgentDies(t *testing.T) {
	ownMachine(t)
	machine := breakGuest(t, "i")
	waitOff(t, machine)
	if text := machine.Console(); !strings.Contains(text, "killed") {
		t.Error("the console does not say how the agent ended")
	}
}

// TestKernelPanic sees that the harness keeps what a dying kernel says.
func TestKernelPanic(t *testing.T) {
	ownMachine(t)
	machine := breakGuest(t, "c")
	waitOff(t, machine)
	if text := machine.Console(); !strings.Contains(text, "Kernel panic") {
		t.Error("the console does not show the panic")
	}
}

// breakGuest presses a key of the kernel's in a machine of its own. The host
// dials, so a transport it can dial over is needed.
func breakGuest(t *testing.T, key string) *vm.VM {
	t.Helper()
	if chosenTransport(t) == vm.Loopback {
		t.Skip("the host has no vsock to the guest")
	}
	g := Boot(t, sharedConfig(t))
	g.createSandbox(t, "pod")
	spec := containerSpec("breaker", "sh", "-c", "echo "+key+" > /proc/sysrq-trigger")
	call(t, g.Agent.CreateContainer, &agentpb.CreateContainerRequest{ContainerId: "breaker", ExecId: "breaker", OCI: spec})
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	// The answer may or may not make it.
	g.Agent.StartContainer(ctx, &agentpb.StartContainerRequest{ContainerId: "breaker"})
	return g.VM
}

// waitOff waits for the machine to switch itself off.
func waitOff(t *testing.T, machine *vm.VM) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bootTimeout)
	defer cancel()
	if err := machine.Wait(ctx); err != nil {
		t.Errorf("the machine did not switch itself off: %v", err)
	}
}

// ownMachine marks tests that start machines: the guest cannot.
func ownMachine(t *testing.T) {
	t.Helper()
	if inside() {
		t.Skip("needs a machine of its own, which the host side of this run starts")
	}
}

// BenchmarkBoot reports medians: until the host has an answer, and in the guest
// from the start of PID 1 to ready, with the loading of kernel modules and apart.
func BenchmarkBoot(b *testing.B) {
	var serving, ready, modules []float64
	for b.Loop() {
		start := time.Now()
		// The kernel says when it starts PID 1, but not to a quiet console.
		g := Boot(b, vm.Config{Words: []string{"ignore_loglevel"}})
		serving = append(serving, time.Since(start).Seconds())
		text := g.Console()
		started := find(b, text, `\[ *([0-9.]+)\] Run /init as init process`)
		ready = append(ready, find(b, text, `"ready".*"ms":"([0-9]+)"`)-1000*started)
		took, err := time.ParseDuration(findText(b, text, `"kernel modules","took":"([^"]+)"`))
		if err != nil {
			b.Fatal(err)
		}
		modules = append(modules, float64(took.Milliseconds()))
		if err := g.Stop(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(median(serving), "s/serving")
	b.ReportMetric(median(ready), "ms/ready")
	b.ReportMetric(median(modules), "ms/modules")
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

func find(t testing.TB, text, pattern string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(findText(t, text, pattern), 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// findText returns what a pattern's group matched.
func findText(t testing.TB, text, pattern string) string {
	t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("the console does not show %s:\n%s", pattern, text)
	}
	return m[1]
}

// TestNoIPTables asks an image without the programs.
func TestNoIPTables(t *testing.T) {
	g := Shared(t)
	_, err := g.Agent.GetIPTables(t.Context(), &agentpb.GetIPTablesRequest{})
	if status.Code(err) != codes.Unimplemented || !strings.Contains(err.Error(), "this guest image has no iptables-save") {
		t.Errorf("got %v", err)
	}
}
