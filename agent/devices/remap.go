package devices

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Kinds of devices as a spec writes them.
const (
	block = "b"
	char  = "c"
)

// vfioContainer is the node that every user of a VFIO group opens first. Its
// number is the same on all machines.
const vfioContainer = "/dev/vfio/vfio"

// change is a number of the host, the guest's node in its place, and the
// cgroup access that the rules about it grant.
type change struct {
	host   number
	guest  node
	access string
}

// remap edits the section for the devices found, by container path.
func remap(linux *specs.Linux, found map[string]node) error {
	changes, err := plan(linux.Devices, found)
	if err != nil {
		return err
	}
	for i := range linux.Devices {
		d := &linux.Devices[i]
		n, ok := found[d.Path]
		if !ok {
			continue
		}
		d.Major, d.Minor = n.major, n.minor
		if n.path != "" {
			d.Path = n.path
		}
	}
	if linux.Resources == nil {
		linux.Resources = &specs.LinuxResources{}
	}
	rewrite(linux.Resources.Devices, changes)
	for _, c := range changes {
		linux.Resources.Devices = append(linux.Resources.Devices, allow(c))
	}
	allowVFIO(linux, changes)
	return nil
}

// plan pairs the devices found with those of the spec, in the spec's order. One
// number of the host cannot become two of the guest.
func plan(ds []specs.LinuxDevice, found map[string]node) ([]*change, error) {
	changes := make([]*change, 0, len(found))
	missing := make(map[string]bool, len(found))
	for p := range found {
		missing[p] = true
	}
	for _, d := range ds {
		n, ok := found[d.Path]
		if !ok {
			continue
		}
		if d.Type != n.kind || !missing[d.Path] {
			return nil, fmt.Errorf("device %.200q of the spec is not of the kind %s, or named twice: %w", d.Path, n.kind, errdefs.ErrInvalidArgument)
		}
		delete(missing, d.Path)
		host := number{d.Major, d.Minor}
		if about(changes, n.kind, host) != nil {
			return nil, fmt.Errorf("two devices with the host's number %d:%d: %w", d.Major, d.Minor, errdefs.ErrInvalidArgument)
		}
		changes = append(changes, &change{host: host, guest: n})
	}
	for p := range missing {
		return nil, fmt.Errorf("missing device %.200q in the OCI spec: %w", p, errdefs.ErrInvalidArgument)
	}
	return changes, nil
}

// about returns the change of a host number, or nil.
func about(changes []*change, kind string, host number) *change {
	for _, c := range changes {
		if c.guest.kind == kind && c.host == host {
			return c
		}
	}
	return nil
}

// rewrite gives the rules that name a host number the guest's, and notes what
// they allow.
func rewrite(rules []specs.LinuxDeviceCgroup, changes []*change) {
	for i := range rules {
		r := &rules[i]
		if r.Major == nil || r.Minor == nil {
			continue
		}
		c := about(changes, r.Type, number{*r.Major, *r.Minor})
		if c == nil {
			continue
		}
		r.Major, r.Minor = new(c.guest.major), new(c.guest.minor)
		if r.Allow {
			c.access += r.Access
		}
	}
}

// allow is the rule that lets a container use its device: as far as the spec's
// own rules do, or in full when it has none about it.
func allow(c *change) specs.LinuxDeviceCgroup {
	access := ""
	for _, letter := range []string{"r", "w", "m"} {
		if c.access == "" || strings.Contains(c.access, letter) {
			access += letter
		}
	}
	return specs.LinuxDeviceCgroup{Allow: true, Type: c.guest.kind, Major: new(c.guest.major), Minor: new(c.guest.minor), Access: access}
}

// allowVFIO lets a container that got a VFIO group use the node that leads to
// it. Shims drop the spec's own rules, so that none would be left for it.
func allowVFIO(linux *specs.Linux, changes []*change) {
	group := false
	for _, c := range changes {
		group = group || strings.HasPrefix(c.guest.path, "/dev/vfio/")
	}
	for _, d := range linux.Devices {
		if group && d.Path == vfioContainer && d.Type == char {
			linux.Resources.Devices = append(linux.Resources.Devices,
				specs.LinuxDeviceCgroup{Allow: true, Type: char, Major: new(int64(10)), Minor: new(int64(196)), Access: "rwm"})
		}
	}
}
