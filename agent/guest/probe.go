package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
)

// maxProbes bounds one request: the shim names every block of a plug, and 16384
// of 128 MiB are 2 TiB.
const maxProbes = 1 << 14

// ProbeMemory tells the kernel that memory blocks begin at the addresses. That
// is for platforms that announce plugged memory in no other way; a kernel
// without the probe file answers ErrNotImplemented. All addresses are checked
// before the first is written.
func (m Machine) ProbeMemory(addresses []uint64) error {
	if len(addresses) > maxProbes {
		return fmt.Errorf("memHotplugProbeAddr: more than %d addresses: %w", maxProbes, errdefs.ErrInvalidArgument)
	}
	memory, err := m.Memory()
	if err != nil {
		return err
	}
	if !memory.Probe {
		return fmt.Errorf("memHotplugProbeAddr: this kernel is told of memory by its platform and takes no probe: %w", errdefs.ErrNotImplemented)
	}
	for i, a := range addresses {
		if memory.BlockSize != 0 && a%memory.BlockSize != 0 {
			return fmt.Errorf("memHotplugProbeAddr[%d]: %#x is not at the start of a block of %#x: %w", i, a, memory.BlockSize, errdefs.ErrInvalidArgument)
		}
	}
	probe := filepath.Join(m.Sys, "devices/system/memory/probe")
	for i, a := range addresses {
		if err := writeKnob(probe, fmt.Sprintf("0x%X", a)); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("memHotplugProbeAddr[%d]: probe %#x: %w", i, a, err)
		}
	}
	return nil
}
