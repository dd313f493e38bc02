package vmtest

import (
	"testing"

	"github.com/coffer-cc/coffer/rootfs/vm"
)

// TestPlugProcessor plugs a processor into a running machine.
func TestPlugProcessor(t *testing.T) {
	ownMachine(t)
	if Shared(t).Accelerator() == "tcg" {
		t.Skip("Linux takes a processor that is not there at boot for broken firmware, unless it knows the hypervisor, and it does not know TCG")
	}
	c := sharedConfig(t)
	c.Room = vm.Room{CPUs: 1}
	g := Boot(t, c)
	g.createSandbox(t, "pod")
	if err := g.PlugCPU(t.Context(), "cpu1"); err != nil {
		t.Fatal(err)
	}
	g.run(t, "wait", "sh", "-c", "until [ -e /sys/devices/system/cpu/cpu1 ]; do sleep 0.1; done")
}
