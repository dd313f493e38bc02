// Package devices turns the devices of a container, which the host names by
// their place in the guest, into edits of its OCI spec. The spec arrives with
// the device numbers of the host; a container must see those of the guest.
//
// What the guest itself wants to give to containers, by CDI, is here too.
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
	Type          string // blk, mmioblk, vfio-pci, …
	VMPath        string // its node in the guest, when the type has it
	ContainerPath string // the path of the spec's device that it stands for
	Options       []string
}

// Addresses are the guest's PCI addresses by those that the host has for the
// same functions.
type Addresses map[string]string

// Apply finds every device in the guest and edits the spec to match: numbers
// of nodes, cgroup rules that speak of the host's numbers, and one rule that
// allows each device. It waits for devices that are still being plugged in. On
// error the spec is as it was; a function that was bound to vfio-pci stays so.
func Apply(ctx context.Context, spec *specs.Spec, ds []Device, f *device.Finder) (Addresses, error) {
	if len(ds) == 0 {
		return nil, nil
	}
	if spec == nil || spec.Linux == nil {
		return nil, fmt.Errorf("devices for a spec without a linux section: %w", errdefs.ErrInvalidArgument)
	}
	a := search{f: f, found: make(map[string]node, len(ds)), pci: Addresses{}}
	for _, d := range ds {
		if err := a.device(ctx, d); err != nil {
			return nil, fmt.Errorf("device %.200q for %.200q: %w", d.ID, d.ContainerPath, err)
		}
	}
	infiniband, err := infinibandNodes(ds, f)
	if err != nil {
		return nil, err
	}
	if err := remap(spec.Linux, a.found); err != nil {
		return nil, err
	}
	expose(spec.Linux, infiniband)
	return a.pci, nil
}

// search is one Apply at work.
type search struct {
	f     *device.Finder
	found map[string]node // by container path
	pci   Addresses
}

// node is what the kernel calls a device of the guest.
type node struct {
	kind string // block or char
	number
	path string // in the container; empty keeps the spec's
}

type number struct{ major, minor int64 }

func (a *search) device(ctx context.Context, d Device) error {
	switch {
	case d.Type == "":
		return fmt.Errorf("type is missing: %w", errdefs.ErrInvalidArgument)
	case d.ID == "" && d.VMPath == "":
		return fmt.Errorf("id and vm_path are missing: %w", errdefs.ErrInvalidArgument)
	case !path.IsAbs(d.ContainerPath) || strings.ContainsRune(d.ContainerPath, 0):
		return fmt.Errorf("container_path is no absolute path: %w", errdefs.ErrInvalidArgument)
	}
	if _, twice := a.found[d.ContainerPath]; twice {
		return fmt.Errorf("two devices for this path: %w", errdefs.ErrInvalidArgument)
	}
	n, err := a.resolve(ctx, d)
	if err == nil && n != nil {
		a.found[d.ContainerPath] = *n
	}
	return err
}

// resolve is the table of types. It returns nil for a device that has no node
// of its own.
func (a *search) resolve(ctx context.Context, d Device) (*node, error) {
	switch d.Type {
	case "vfio-pci":
		return a.vfio(ctx, d)
	case "vfio-pci-gk":
		return nil, a.guestKernel(ctx, d)
	case "vfio-ap", "vfio-ap-cold":
		return a.crypto(ctx, d)
	}
	m, err := matcher(d)
	if err != nil {
		return nil, err
	}
	file, err := a.f.Wait(ctx, m)
	if err != nil {
		return nil, err
	}
	major, minor, err := device.BlockNumber(file)
	return &node{kind: block, number: number{int64(major), int64(minor)}}, err
}

// matcher is the table of disks. For blk the vm_path is the host's guess of a
// name, which only the guest knows, so it is not read.
func matcher(d Device) (device.Matcher, error) {
	switch d.Type {
	case "blk":
		p, err := device.ParsePCIPath(d.ID)
		return device.VirtioBlock{Path: p}, err
	case "mmioblk":
		return device.ParseBlockNode(d.VMPath)
	case "scsi":
		return device.ParseSCSIAddress(d.ID)
	case "nvdimm":
		return device.ParsePmem(d.VMPath)
	case "blk-ccw":
		return device.ParseCCW(d.ID)
	}
	return nil, fmt.Errorf("device type %.80q is not supported yet: %w", d.Type, errdefs.ErrNotImplemented)
}

// charNode describes a character device by its name below /dev.
func (a *search) charNode(name string) (*node, error) {
	n, err := a.f.ReadNode(name)
	if err != nil {
		return nil, err
	}
	if n.Block {
		return nil, fmt.Errorf("%s is no character device: %w", n.Path, errdefs.ErrInvalidArgument)
	}
	return &node{kind: char, number: number{int64(n.Major), int64(n.Minor)}, path: n.Path}, nil
}
