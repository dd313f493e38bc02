// Package network gives the pod's network to the guest kernel: interfaces,
// addresses, routes, neighbours and the resolver file, as the host's shim asks
// for them. The calls come before CreateSandbox and may be repeated at any time.
// Everything in a request is the host's word; it is checked here, once, and
// never reaches the kernel half-parsed.
//
// github.com/vishvananda/netlink is used because it speaks rtnetlink without
// programs in the guest image; no other package imports it.
package network

import (
	"context"
	"fmt"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/mount/device"
)

// maxEntries bounds every list of a request, far above what a pod has, so that
// one request cannot keep the kernel's rtnl lock busy for minutes.
const maxEntries = 1024

// Finder waits for a device that the host plugs in, and returns the name of its
// interface; *device.Finder satisfies it.
type Finder interface {
	Wait(ctx context.Context, m device.Matcher) (name string, err error)
}

// Stack is the network of one namespace. It may be used concurrently.
type Stack struct {
	finder Finder
	proc   string

	mu     sync.Mutex // serialises sequences of changes: two renames at once would take each other's temporary names
	handle *netlink.Handle
}

// Open binds a Stack to the network namespace of the calling thread. With a nil
// Finder a device path in a request is not waited for.
func Open(f Finder) (*Stack, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink socket: %w", err)
	}
	return &Stack{finder: f, proc: "/proc", handle: h}, nil
}

// Close releases the netlink socket.
func (s *Stack) Close() {
	s.handle.Close()
}

// LoopbackUp brings the loopback interface up. A guest that boots without an
// init system has nobody else to do it, and the workload API listens on it.
func (s *Stack) LoopbackUp(context.Context) error {
	lo, err := s.handle.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := s.handle.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	return nil
}

// checkName refuses what the kernel would refuse as an interface name, before
// the name is used in a path or a message.
func checkName(field, name string) error {
	if name == "" || len(name) >= unix.IFNAMSIZ || name == "." || name == ".." {
		return fmt.Errorf("%s: not an interface name: %w", field, errdefs.ErrInvalidArgument)
	}
	for _, c := range []byte(name) {
		if c <= ' ' || c >= 0x7f || c == '/' || c == ':' || c == '%' {
			return fmt.Errorf("%s: not an interface name: %w", field, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

func checkCount(field string, n int) error {
	if n > maxEntries {
		return fmt.Errorf("%s: more than %d entries: %w", field, maxEntries, errdefs.ErrInvalidArgument)
	}
	return nil
}
