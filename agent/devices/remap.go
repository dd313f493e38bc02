package devices

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

const block = "b"

// change is a number of the host, the guest's number in its place, and the
// cgroup access that the rules about it grant.
type change struct {
	host, guest number
	access      string
}

// remap edits the section for the devices found, by container path.
func remap(linux *specs.Linux, found map[string]number) error {
	changes, err := plan(linux.Devices, found)
	if err != nil {
		return err
	}
	for i := range linux.Devices {
		d := &linux.Devices[i]
		if n, ok := found[d.Path]; ok {
			d.Major, d.Minor = n.major, n.minor
		}
	}
	if linux.Resources == nil {
		linux.Resources = &specs.LinuxResources{}
	}
	rewrite(linux.Resources.Devices, changes)
	for _, c := range changes {
		linux.Resources.Devices = append(linux.Resources.Devices, allow(c))
	}
	return nil
}

// plan pairs the devices found with those of the spec, in the spec's order. One
// number of the host cannot become two of the guest.
func plan(ds []specs.LinuxDevice, found map[string]number) ([]*change, error) {
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
		if d.Type != block || !missing[d.Path] {
			return nil, fmt.Errorf("device %.200q of the spec is no block device, or named twice: %w", d.Path, errdefs.ErrInvalidArgument)
		}
		delete(missing, d.Path)
		host := number{d.Major, d.Minor}
		if about(changes, host) != nil {
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
func about(changes []*change, host number) *change {
	for _, c := range changes {
		if c.host == host {
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
		if r.Type != block || r.Major == nil || r.Minor == nil {
			continue
		}
		c := about(changes, number{*r.Major, *r.Minor})
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
	return specs.LinuxDeviceCgroup{Allow: true, Type: block, Major: new(c.guest.major), Minor: new(c.guest.minor), Access: access}
}
