package device

import (
	"fmt"
	"path"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// VirtioBlock matches the disk of the virtio-blk function at a PCI path. Its
// partitions lie one level deeper and do not match.
type VirtioBlock struct{ Path PCIPath }

// Match implements Matcher.
func (v VirtioBlock) Match(e Event) (string, bool) {
	rest, ok := v.Path.below(e.DevPath)
	return e.DevName, ok && e.Subsystem == "block" && len(rest) == 3 && isVirtio(rest[0]) && rest[1] == "block"
}

func (v VirtioBlock) String() string { return "virtio disk at PCI path " + v.Path.String() }

// Net matches the network interface of the function at a PCI path.
type Net struct{ Path PCIPath }

// Match implements Matcher.
func (n Net) Match(e Event) (string, bool) {
	rest, ok := n.Path.below(e.DevPath)
	if !ok || e.Subsystem != "net" {
		return "", false
	}
	if len(rest) > 0 && isVirtio(rest[0]) {
		rest = rest[1:]
	}
	return e.DevName, len(rest) == 2 && rest[0] == "net"
}

func (n Net) String() string { return "network interface at PCI path " + n.Path.String() }

// BlockNode matches the block device with exactly this name.
type BlockNode struct{ name string }

// ParseBlockNode reads "/dev/vda". Deeper paths are refused: what lies there
// are links that somebody else makes. So are mapped devices: the host plugs in
// none, and the guest's own show in clear what is encrypted for one container.
func ParseBlockNode(s string) (BlockNode, error) {
	name, ok := strings.CutPrefix(s, "/dev/")
	if ok && strings.HasPrefix(name, "dm-") {
		return BlockNode{}, fmt.Errorf("device node %.80q is the guest's own: %w", s, errdefs.ErrPermissionDenied)
	}
	if !ok || name == "" || len(name) > 64 || strings.ContainsAny(name, "/\x00") || name[0] == '.' {
		return BlockNode{}, fmt.Errorf("device node %.80q is not /dev/NAME: %w", s, errdefs.ErrInvalidArgument)
	}
	return BlockNode{name}, nil
}

// Match implements Matcher.
func (b BlockNode) Match(e Event) (string, bool) {
	return e.DevName, e.Subsystem == "block" && e.DevName == b.name && path.Base(e.DevPath) == b.name
}

func (b BlockNode) String() string { return "block device " + b.name }

// ParseBlock reads what shims put into the source of a blk storage: a node or
// a PCI path.
func ParseBlock(s string) (Matcher, error) {
	if strings.HasPrefix(s, "/") {
		return matcher(ParseBlockNode(s))
	}
	p, err := ParsePCIPath(s)
	return matcher(VirtioBlock{p}, err)
}

func matcher[M Matcher](m M, err error) (Matcher, error) {
	if err != nil {
		return nil, err
	}
	return m, nil
}

// BlockNumber returns major and minor of a node that must be a block device
// and no symlink.
func BlockNumber(node string) (major, minor uint32, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(node, &st); err != nil {
		return 0, 0, fmt.Errorf("stat %q: %w", node, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0, 0, fmt.Errorf("%q is no block device: %w", node, errdefs.ErrInvalidArgument)
	}
	return unix.Major(st.Rdev), unix.Minor(st.Rdev), nil
}
