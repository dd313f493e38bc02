package vmtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/coffer-cc/coffer/rootfs/vm"
)

// TestHotplug plugs one of each kind into a running machine and sees the
// kernel find it.
func TestHotplug(t *testing.T) {
	ownMachine(t)
	c := sharedConfig(t)
	own := Variant{
		Modules: []string{"virtio_scsi", "sd_mod", "nfit", "nd_pmem"},
		Add:     hostProgram(t, "mkfs.ext4"),
	}.Build(t)
	c.Kernel, c.Initrd = own.Kernel, own.Initrd
	c.Room = vm.Room{CPUs: 1, Memory: 512, SCSI: true, Bridge: true}
	g := Boot(t, c)
	g.createSandbox(t, "pod")
	image := func(name string) vm.Disk {
		path := filepath.Join(t.TempDir(), name)
		if f, err := os.Create(path); err != nil {
			t.Fatal(err)
		} else if err := errors.Join(f.Truncate(128*mebibyte), f.Close()); err != nil {
			t.Fatal(err)
		}
		return vm.Disk{Path: path, Slot: 3}
	}
	for _, tc := range []struct {
		name string
		plug func() error
		wait string // for this path in the guest
	}{
		{"disk", func() error { return g.PlugDisk(t.Context(), "disk", image("disk")) },
			"/sys/devices/pci0000:00/0000:00:02.0/0000:01:03.0/virtio*/block/vdb"},
		{"scsi", func() error { return g.PlugSCSI(t.Context(), "scsi", image("scsi"), 1, 2) }, "/sys/class/scsi_device/*:0:1:2/device/block/sda"},
		{"nvdimm", func() error {
			return g.PlugNVDIMM(t.Context(), "nvdimm", image("nvdimm").Path, 128*mebibyte)
		}, "/sys/class/block/pmem0"},
		{"network", func() error {
			return g.PlugNetwork(t.Context(), "net", vm.Network{Slot: 4, MAC: "52:54:00:00:00:04"})
		}, "/sys/class/net/eth1"},
		{"memory", func() error { return g.PlugMemory(t.Context(), "memory", 128) }, "/sys/devices/system/memory/memory33"},
		{"processor", func() error { return g.PlugCPU(t.Context(), "cpu1") }, "/sys/devices/system/cpu/cpu1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.name == "processor" && g.Accelerator() == "tcg" {
				t.Skip("Linux takes a processor that is not there at boot for broken firmware, unless it knows the hypervisor, and it does not know TCG")
			}
			if err := tc.plug(); err != nil {
				t.Fatal(err)
			}
			g.run(t, "wait-"+tc.name, "sh", "-c", fmt.Sprintf("until [ -e %s ]; do sleep 0.1; done", tc.wait))
		})
	}
	if err := g.Unplug(t.Context(), "disk"); err != nil {
		t.Error(err)
	}
}
