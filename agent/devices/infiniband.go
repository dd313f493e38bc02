package devices

import (
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/coffer-cc/coffer/mount/device"
)

// infinibandNodes returns the nodes of the guest's InfiniBand drivers for a
// container that was given a PCI function. A network adapter that stays with
// the guest's driver is used through them, and the host knows nothing of them.
func infinibandNodes(ds []Device, f *device.Finder) ([]device.Node, error) {
	isPCI := func(d Device) bool { return strings.HasPrefix(d.Type, "vfio-pci") }
	if !slices.ContainsFunc(ds, isPCI) {
		return nil, nil
	}
	return f.CharNodes("infiniband")
}

// expose adds nodes of the guest to a container, unless it has them.
func expose(linux *specs.Linux, nodes []device.Node) {
	for _, n := range nodes {
		if slices.ContainsFunc(linux.Devices, func(d specs.LinuxDevice) bool { return d.Path == n.Path }) {
			continue
		}
		major, minor := int64(n.Major), int64(n.Minor)
		linux.Devices = append(linux.Devices, specs.LinuxDevice{
			Path: n.Path, Type: char, Major: major, Minor: minor,
			FileMode: new(n.Mode), UID: new(n.UID), GID: new(n.GID),
		})
		linux.Resources.Devices = append(linux.Resources.Devices,
			specs.LinuxDeviceCgroup{Allow: true, Type: char, Major: &major, Minor: &minor, Access: "rwm"})
	}
}
