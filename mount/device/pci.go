package device

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// maxBridges bounds a PCI path. The deepest that a shim makes has four.
const maxBridges = 16

// pxbMin is the lowest bus number that shims give to the root bus of an
// expander bridge, which they place above every slot number.
const pxbMin = 0x20

// PCIPath names a function by the way to it: the slot of each bridge, then its
// own slot, on the bus behind the last bridge. Bus numbers do not occur, since
// the guest assigns them and the host cannot know them.
type PCIPath struct {
	root  uint8    // bus number of the root bus, 0 unless an expander
	steps []slotFn // at least one
}

type slotFn struct{ slot, fn uint8 }

func (s slotFn) String() string {
	if s.fn == 0 {
		return fmt.Sprintf("%02x", s.slot)
	}
	return fmt.Sprintf("%02x.%x", s.slot, s.fn)
}

// ParsePCIPath reads "02/03": elements SLOT or SLOT.FN in hex with slashes in
// between. A first element of 0x20 or more, with at least two behind it, is the
// root bus of an expander bridge.
func ParsePCIPath(s string) (PCIPath, error) {
	bad := func(why string) (PCIPath, error) {
		return PCIPath{}, fmt.Errorf("PCI path %.80q: %s: %w", s, why, errdefs.ErrInvalidArgument)
	}
	parts := strings.Split(s, "/")
	if len(parts) > maxBridges {
		return bad("too many elements")
	}
	var p PCIPath
	if root, ok := hex(parts[0], 0xff); ok && root >= pxbMin && len(parts) >= 3 {
		p.root, parts = root, parts[1:]
	}
	for _, part := range parts {
		step, ok := parseSlotFn(part)
		if !ok {
			return bad("elements are SLOT or SLOT.FN in hex, up to 1f.7")
		}
		p.steps = append(p.steps, step)
	}
	return p, nil
}

func parseSlotFn(s string) (slotFn, bool) {
	slot, fn, hasFn := strings.Cut(s, ".")
	var out slotFn
	var ok bool
	if out.slot, ok = hex(slot, 0x1f); !ok {
		return slotFn{}, false
	}
	if hasFn {
		out.fn, ok = hex(fn, 7)
	}
	return out, ok
}

// hex reads one or two hex digits up to max, and nothing else.
func hex(s string, max uint8) (uint8, bool) {
	if len(s) == 0 || len(s) > 2 || strings.ContainsAny(s, "+-_") {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 16, 8)
	return uint8(n), err == nil && uint8(n) <= max
}

func (p PCIPath) String() string {
	var parts []string
	if p.root != 0 {
		parts = append(parts, fmt.Sprintf("%02x", p.root))
	}
	for _, s := range p.steps {
		parts = append(parts, s.String())
	}
	return strings.Join(parts, "/")
}

// below returns what follows the function in the path of a device, or false
// when the device is not behind this function. The root bus is directly below
// /devices, or on arm64 below the platform's host bridge.
func (p PCIPath) below(devPath string) ([]string, bool) {
	parts := strings.Split(strings.TrimPrefix(devPath, "/devices/"), "/")
	if len(parts) > 2 && parts[0] == "platform" && strings.HasSuffix(parts[1], ".pcie") {
		parts = parts[2:]
	}
	if len(parts) <= len(p.steps) || parts[0] != fmt.Sprintf("pci0000:%02x", p.root) {
		return nil, false
	}
	parts = parts[1:]
	for i, step := range p.steps {
		if !isFunction(parts[i], step) {
			return nil, false
		}
	}
	return parts[len(p.steps):], true
}

// isFunction compares a name in sysfs, "0000:01:03.0", with a slot and function
// on whatever bus.
func isFunction(name string, want slotFn) bool {
	fields := strings.Split(name, ":")
	return len(fields) == 3 && fields[2] == fmt.Sprintf("%02x.%x", want.slot, want.fn)
}

// isVirtio reports whether name is "virtio" and a number.
func isVirtio(name string) bool {
	n, ok := strings.CutPrefix(name, "virtio")
	_, err := strconv.ParseUint(n, 10, 32)
	return ok && err == nil
}
