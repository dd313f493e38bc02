package vm

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"

	"github.com/containerd/errdefs"
)

// Room is what a machine keeps free for things that are plugged in later. The
// shape is that of Kata's q35 machines.
type Room struct {
	CPUs   int  // further processors, on top of Config.CPUs
	Memory int  // MiB for memory and NVDIMMs; 0 for none
	SCSI   bool // a virtio-scsi controller
	Bridge bool // a PCI bridge in slot BridgeSlot, for disks and network cards
}

// BridgeSlot is where the bridge for hot-plug sits: a device that was plugged
// into its slot N has the PCI path "02/N".
const BridgeSlot = 2

// memorySlots is how many memory devices a machine with Room takes.
const memorySlots = 8

const (
	bridgeBus = "pci-bridge-0"
	scsiBus   = "scsi0.0"
)

func (r Room) args() []string {
	var args []string
	if r.Bridge {
		args = append(args, "-device", fmt.Sprintf("pci-bridge,bus=pcie.0,id=%s,chassis_nr=1,shpc=off,addr=0x%x,io-reserve=4k,mem-reserve=1m,pref64-reserve=1m", bridgeBus, BridgeSlot))
	}
	if r.SCSI {
		args = append(args, "-device", "virtio-scsi-pci,id=scsi0")
	}
	return args
}

// Execute runs a command of QEMU's monitor protocol and decodes its result into
// result, unless that is nil.
func (v *VM) Execute(ctx context.Context, command string, arguments, result any) error {
	m, err := v.openMonitor(ctx)
	if err != nil {
		return err
	}
	return m.execute(ctx, command, arguments, result)
}

// openMonitor connects on first use.
func (v *VM) openMonitor(ctx context.Context) (*monitor, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.monitor == nil {
		m, err := dialMonitor(ctx, v.monitorPath())
		if err != nil {
			return nil, err
		}
		v.monitor = m
	}
	return v.monitor, nil
}

func (v *VM) monitorPath() string { return filepath.Join(v.dir, "qmp") }

// Plug adds a device of QEMU's, with its properties. The guest sees it some
// time after this returns.
func (v *VM) Plug(ctx context.Context, driver, id string, properties map[string]any) error {
	arguments := map[string]any{"driver": driver, "id": id}
	maps.Copy(arguments, properties)
	return v.Execute(ctx, "device_add", arguments, nil)
}

// Unplug asks the guest to let go of a device, and waits until it is gone.
func (v *VM) Unplug(ctx context.Context, id string) error {
	m, err := v.openMonitor(ctx)
	if err != nil {
		return err
	}
	if err := m.execute(ctx, "device_del", map[string]any{"id": id}, nil); err != nil {
		return err
	}
	return m.wait(ctx, "the end of device "+id, func(event string, data json.RawMessage) bool {
		var gone struct{ Device string }
		return event == "DEVICE_DELETED" && json.Unmarshal(data, &gone) == nil && gone.Device == id
	})
}

// PlugDisk adds a raw image as a virtio block device in a slot of the bridge.
func (v *VM) PlugDisk(ctx context.Context, id string, d Disk) error {
	if err := v.addImage(ctx, id, d); err != nil {
		return err
	}
	return v.Plug(ctx, "virtio-blk-pci", id, map[string]any{"drive": id + "-image", "bus": bridgeBus, "addr": fmt.Sprintf("%x", d.Slot), "serial": d.Serial})
}

// PlugSCSI adds a raw image as a disk of the virtio-scsi controller.
func (v *VM) PlugSCSI(ctx context.Context, id string, d Disk, target, lun int) error {
	if err := v.addImage(ctx, id, d); err != nil {
		return err
	}
	return v.Plug(ctx, "scsi-hd", id, map[string]any{"drive": id + "-image", "bus": scsiBus, "channel": 0, "scsi-id": target, "lun": lun, "serial": d.Serial})
}

func (v *VM) addImage(ctx context.Context, id string, d Disk) error {
	return v.Execute(ctx, "blockdev-add", map[string]any{
		"node-name": id + "-image", "driver": "raw", "read-only": d.ReadOnly,
		"file": map[string]any{"driver": "file", "filename": d.Path},
	}, nil)
}

// memoryBlock is the size in MiB that Linux takes memory in. Everything that is
// plugged as memory has a multiple of it, or what comes next begins at an
// address that the guest refuses.
const memoryBlock = 128

// PlugNVDIMM adds a file of size bytes, a multiple of 128 MiB, as persistent
// memory. It counts against Room.Memory.
func (v *VM) PlugNVDIMM(ctx context.Context, id, path string, size int64) error {
	if size%(memoryBlock<<20) != 0 {
		return fmt.Errorf("plug NVDIMM: %d bytes are no multiple of %d MiB: %w", size, memoryBlock, errdefs.ErrInvalidArgument)
	}
	err := v.Execute(ctx, "object-add", map[string]any{
		"qom-type": "memory-backend-file", "id": id + "-memory", "mem-path": path, "size": size, "share": true,
	}, nil)
	if err != nil {
		return err
	}
	return v.Plug(ctx, "nvdimm", id, map[string]any{"memdev": id + "-memory"})
}

// PlugMemory adds ordinary memory of so many MiB, a multiple of 128.
func (v *VM) PlugMemory(ctx context.Context, id string, mib int64) error {
	if mib%memoryBlock != 0 {
		return fmt.Errorf("plug memory: %d MiB are no multiple of %d: %w", mib, memoryBlock, errdefs.ErrInvalidArgument)
	}
	// Device programs map the guest's memory, so it is shared.
	err := v.Execute(ctx, "object-add", map[string]any{
		"qom-type": "memory-backend-memfd", "id": id + "-memory", "size": mib << 20, "share": true,
	}, nil)
	if err != nil {
		return err
	}
	return v.Plug(ctx, "pc-dimm", id, map[string]any{"memdev": id + "-memory"})
}

// PlugNetwork adds a card in a slot of the bridge, behind a user-mode network
// of its own.
func (v *VM) PlugNetwork(ctx context.Context, id string, n Network) error {
	err := v.Execute(ctx, "netdev_add", map[string]any{"type": "user", "id": id + "-net", "restrict": n.Restrict}, nil)
	if err != nil {
		return err
	}
	properties := map[string]any{"netdev": id + "-net", "bus": bridgeBus, "addr": fmt.Sprintf("%x", n.Slot), "romfile": ""}
	if n.MAC != "" {
		properties["mac"] = n.MAC
	}
	return v.Plug(ctx, "virtio-net-pci", id, properties)
}

// PlugCPU adds the next processor that the machine has room for.
func (v *VM) PlugCPU(ctx context.Context, id string) error {
	var all []struct {
		Type  string
		Props map[string]any
		Path  string `json:"qom-path"`
	}
	if err := v.Execute(ctx, "query-hotpluggable-cpus", nil, &all); err != nil {
		return err
	}
	// QEMU lists the last one first.
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Path == "" {
			return v.Plug(ctx, all[i].Type, id, all[i].Props)
		}
	}
	return fmt.Errorf("plug processor: the machine has no room for one: %w", errdefs.ErrFailedPrecondition)
}
