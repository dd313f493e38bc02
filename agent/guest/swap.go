package guest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unsafe"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/mount/device"
)

// Finder waits for a device that the host plugs in; *device.Finder satisfies it.
type Finder interface {
	Wait(ctx context.Context, m device.Matcher) (path string, err error)
}

// Swap gives disks of the host to the kernel as swap space. What the kernel
// puts there the host can read, so a confidential guest must not be asked to:
// whoever calls sees to that.
type Swap struct {
	Devices Finder
}

// AddSlots waits for the virtio disk at the end of a way through PCI slots,
// function 0 of each, and swaps to it.
func (s Swap) AddSlots(ctx context.Context, slots []uint32) error {
	steps := make([]string, len(slots))
	for i, slot := range slots {
		if slot > 0x1f {
			return fmt.Errorf("PCIPath[%d]: %#x is no slot: %w", i, slot, errdefs.ErrInvalidArgument)
		}
		steps[i] = fmt.Sprintf("%02x", slot)
	}
	path, err := device.ParsePCIPath(strings.Join(steps, "/"))
	if err != nil {
		return fmt.Errorf("PCIPath: %w", err)
	}
	return s.add(ctx, "PCIPath", device.VirtioBlock{Path: path})
}

// AddNode waits for the disk "/dev/NAME" and swaps to it.
func (s Swap) AddNode(ctx context.Context, path string) error {
	node, err := device.ParseBlockNode(path)
	if err != nil {
		return fmt.Errorf("path: %w", err)
	}
	return s.add(ctx, "path", node)
}

func (s Swap) add(ctx context.Context, field string, m device.Matcher) error {
	node, err := s.Devices.Wait(ctx, m)
	if err != nil {
		return fmt.Errorf("%s: %w", field, err)
	}
	if _, _, err := device.BlockNumber(node); err != nil {
		return fmt.Errorf("%s: %w", field, err)
	}
	if err := swapOn(node); err != nil {
		return fmt.Errorf("%s: swap to %s: %w", field, node, err)
	}
	return nil
}

// swapOn names the reasons that a caller can do something about.
func swapOn(node string) error {
	p, err := unix.BytePtrFromString(node)
	if err != nil {
		return fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err)
	}
	_, _, errno := unix.Syscall(unix.SYS_SWAPON, uintptr(unsafe.Pointer(p)), 0, 0)
	switch {
	case errno == 0:
		return nil
	case errors.Is(errno, unix.EINVAL):
		return fmt.Errorf("the disk holds no swap area: %w", errdefs.ErrFailedPrecondition)
	case errors.Is(errno, unix.EBUSY):
		return fmt.Errorf("the disk is in use: %w", errdefs.ErrFailedPrecondition)
	case errors.Is(errno, unix.ENOSYS):
		return fmt.Errorf("the kernel cannot swap: %w", errdefs.ErrNotImplemented)
	}
	return errno
}
