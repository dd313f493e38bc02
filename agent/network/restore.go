package network

import (
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// linkState is what UpdateInterface changes of a link.
type linkState struct {
	name  string
	mtu   int
	up    bool
	noARP bool
	addrs []netlink.Addr
}

func (s *Stack) remember(link netlink.Link) (linkState, error) {
	a := link.Attrs()
	addrs, err := s.handle.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return linkState{}, fmt.Errorf("list addresses of %s: %w", a.Name, err)
	}
	return linkState{name: a.Name, mtu: a.MTU, up: a.Flags&net.FlagUp != 0, noARP: a.RawFlags&unix.IFF_NOARP != 0, addrs: addrs}, nil
}

// restore takes a request back that failed halfway.
func (s *Stack) restore(index int, was linkState) error {
	link, err := s.handle.LinkByIndex(index)
	if err != nil {
		return fmt.Errorf("find the interface again: %w", err)
	}
	var errs []error
	if link.Attrs().Name != was.name {
		errs = append(errs, s.rename(link, was.name))
	}
	if link.Attrs().MTU != was.mtu {
		errs = append(errs, s.handle.LinkSetMTU(link, was.mtu))
	}
	setARP := s.handle.LinkSetARPOn
	if was.noARP {
		setARP = s.handle.LinkSetARPOff
	}
	errs = append(errs, setARP(link))
	now, err := s.handle.AddrList(link, netlink.FAMILY_ALL)
	errs = append(errs, err)
	for _, a := range now {
		if !a.IP.IsLinkLocalUnicast() && !slices.ContainsFunc(was.addrs, func(b netlink.Addr) bool { return a.Equal(b) }) {
			errs = append(errs, s.handle.AddrDel(link, &a))
		}
	}
	if !was.up {
		errs = append(errs, s.handle.LinkSetDown(link))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("put interface %s back: %w", was.name, err)
	}
	return nil
}
