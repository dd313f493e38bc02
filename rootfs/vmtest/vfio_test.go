package vmtest

import (
	"context"
	"strings"
	"testing"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

// TestVFIO gives a function behind an emulated IOMMU to a container. The host
// names the modules, the guest takes the function from its driver.
func TestVFIO(t *testing.T) {
	ownMachine(t)
	c := sharedConfig(t)
	// The kernel checks its timer through the IOMMU, and on an emulated and busy
	// machine takes a late interrupt for none.
	c.Words = append(c.Words, "intel_iommu=on", "no_timer_check")
	c.Arguments = []string{
		"-device", "intel-iommu",
		"-device", "virtio-rng-pci,bus=pcie.0,addr=0xa,disable-legacy=on,iommu_platform=on",
		"-device", "pcie-root-port,id=port0,bus=pcie.0,addr=0xb,chassis=9",
		"-device", "virtio-rng-pci,bus=port0,disable-legacy=on,iommu_platform=on",
	}
	g := Boot(t, c)
	call(t, g.Agent.CreateSandbox, &agentpb.CreateSandboxRequest{
		SandboxId: "pod", Hostname: "pod",
		KernelModules: []*agentpb.KernelModule{{Name: "vfio_iommu_type1"}, {Name: "vfio-pci"}, {Name: "dummy", Parameters: []string{"numdummies=3"}}},
		Storages: []*agentpb.Storage{
			{Driver: "virtio-fs", Source: shareTag, Fstype: "virtiofs", MountPoint: sharedDir},
			{Driver: "ephemeral", Source: "shm", Fstype: "tmpfs", MountPoint: "/run/kata-containers/sandbox/shm"},
		},
	})
	if got := g.run(t, "modules", "sh", "-c", "echo /sys/class/net/dummy*"); strings.Count(got, "/dummy") != 3 {
		t.Errorf("the module with a parameter made %q", got)
	}
	// What a shim sends for two groups of the host, one function each.
	spec := containerSpec("vfio", "sh", "-c", `env | grep PCIDEVICE; for g in /dev/vfio/[0-9]*; do (: <>$g) && echo $g; done; : <>/dev/vfio/vfio && echo container
cat /sys/bus/pci/devices/0000:00:0a.0/driver_override; cat /dev/vfio/forbidden`)
	spec.Process.Env = append(spec.Process.Env, "PCIDEVICE_VENDOR_NIC=0000:c8:01.2,0000:c8:02.0", `PCIDEVICE_VENDOR_NIC_INFO={"0000:c8:01.2":{}}`)
	spec.Linux.Devices = []*agentpb.LinuxDevice{
		{Path: "/dev/vfio/vfio", Type: "c", Major: 10, Minor: 196},
		{Path: "/dev/vfio/61", Type: "c", Major: 511, Minor: 0},
		{Path: "/dev/vfio/62", Type: "c", Major: 511, Minor: 1},
	}
	call(t, g.Agent.CreateContainer, &agentpb.CreateContainerRequest{ContainerId: "vfio", ExecId: "vfio", OCI: spec, Devices: []*agentpb.Device{
		{Id: "61", Type: "vfio-pci", ContainerPath: "/dev/vfio/61", Options: []string{"0000:c8:01.2=0a"}},
		{Id: "62", Type: "vfio-pci", ContainerPath: "/dev/vfio/62", Options: []string{"0000:c8:02.0=0b/00"}},
	}})
	call(t, g.Agent.StartContainer, &agentpb.StartContainerRequest{ContainerId: "vfio"})
	out := g.output(t, "vfio")
	t.Logf("the container sees\n%s", out)
	for _, want := range []string{"PCIDEVICE_VENDOR_NIC=0000:00:0a.0,0000:", `PCIDEVICE_VENDOR_NIC_INFO={"0000:00:0a.0":{}}`, "\ncontainer\nvfio-pci\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("want %q in it", want)
		}
	}
	if n := strings.Count(out, "\n/dev/vfio/"); n != 2 || strings.Contains(out, "/dev/vfio/6") && !strings.Contains(out, "\n/dev/vfio/6\n") {
		t.Errorf("%d groups can be opened, want 2", n)
	}
	absentFunction(t, g)
}

func absentFunction(t *testing.T, g *Guest) {
	t.Helper()
	spec := containerSpec("none", "true")
	spec.Linux.Devices = []*agentpb.LinuxDevice{{Path: "/dev/vfio/61", Type: "c", Major: 511}}
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	_, err := g.Agent.CreateContainer(ctx, &agentpb.CreateContainerRequest{ContainerId: "none", ExecId: "none", OCI: spec, Devices: []*agentpb.Device{
		{Id: "61", Type: "vfio-pci", ContainerPath: "/dev/vfio/61", Options: []string{"0000:c8:01.2=1e"}},
	}})
	if err == nil || !strings.Contains(err.Error(), "PCI function at path 1e") {
		t.Errorf("a function that is not there: %v", err)
	}
}
