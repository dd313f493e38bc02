// Package devices turns the devices of a container, which the host names by
// their place in the guest, into edits of its OCI spec. The spec arrives with
// the device numbers of the host; a container must see those of the guest.
package devices

import (
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/coffer-cc/coffer/mount/device"
)

// Device is one device that the host gives to a container.
type Device struct {
	ID            string // where it is plugged in, as its type writes it
	Type          string // blk, mmioblk, …
	VMPath        string // its node in the guest, when the type has it
	ContainerPath string // the path of the spec's device that it stands for
	Options       []string
}

// Finder waits for a device to appear; *device.Finder satisfies it.
type Finder interface {
	Wait(ctx context.Context, m device.Matcher) (path string, err error)
}

// Apply finds every device in the guest and edits the spec to match: numbers
// of nodes, cgroup rules that speak of the host's numbers, and one rule that
// allows each device. It waits for devices that are still being plugged in. On
// error the spec is as it was.
func Apply(ctx context.Context, spec *specs.Spec, ds []Device, f Finder) error {
	if len(ds) == 0 {
		return nil
	}
	if spec == nil || spec.Linux == nil {
		return fmt.Errorf("devices for a spec without a linux section: %w", errdefs.ErrInvalidArgument)
	}
	found := make(map[string]number, len(ds)) // by container path
	for _, d := range ds {
		n, err := find(ctx, d, f)
		if err != nil {
			return fmt.Errorf("device %.200q for %.200q: %w", d.ID, d.ContainerPath, err)
		}
		if _, twice := found[d.ContainerPath]; twice {
			return fmt.Errorf("two devices for %.200q: %w", d.ContainerPath, errdefs.ErrInvalidArgument)
		}
		found[d.ContainerPath] = n
	}
	return remap(spec.Linux, found)
}

// number is what the kernel calls a device. All types so far are block devices.
type number struct{ major, minor int64 }

// find checks the fields of d and resolves it in the guest.
func find(ctx context.Context, d Device, f Finder) (number, error) {
	switch {
	case d.Type == "":
		return number{}, fmt.Errorf("type is missing: %w", errdefs.ErrInvalidArgument)
	case d.ID == "" && d.VMPath == "":
		return number{}, fmt.Errorf("id and vm_path are missing: %w", errdefs.ErrInvalidArgument)
	case !path.IsAbs(d.ContainerPath) || strings.ContainsRune(d.ContainerPath, 0):
		return number{}, fmt.Errorf("container_path is no absolute path: %w", errdefs.ErrInvalidArgument)
	}
	m, err := matcher(d)
	if err != nil {
		return number{}, err
	}
	node, err := f.Wait(ctx, m)
	if err != nil {
		return number{}, err
	}
	major, minor, err := device.BlockNumber(node)
	return number{int64(major), int64(minor)}, err
}

// matcher is the table of types. For blk the vm_path is the host's guess of a
// name, which only the guest knows, so it is not read.
func matcher(d Device) (device.Matcher, error) {
	switch d.Type {
	case "blk":
		p, err := device.ParsePCIPath(d.ID)
		return device.VirtioBlock{Path: p}, err
	case "mmioblk":
		return device.ParseBlockNode(d.VMPath)
	}
	return nil, fmt.Errorf("device type %.80q is not supported yet: %w", d.Type, errdefs.ErrNotImplemented)
}
