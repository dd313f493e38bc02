package network

import (
	"context"
	"fmt"

	"github.com/vishvananda/netlink"
)

// Neighbor is an entry of the ARP or neighbour table. State 0 means permanent;
// an empty HWAddr leaves the resolution to the kernel.
type Neighbor struct {
	IP     string
	Device string
	HWAddr string
	State  int32
	Flags  int32
}

// AddNeighbors adds or replaces the entries, in order. All are checked, and
// their devices found, before the first is set.
func (s *Stack) AddNeighbors(_ context.Context, want []Neighbor) error {
	if err := checkCount("ARPNeighbors", len(want)); err != nil {
		return err
	}
	parsed := make([]*netlink.Neigh, len(want))
	for i, n := range want {
		p, err := n.parse()
		if err != nil {
			return fmt.Errorf("ARPNeighbors[%d].%w", i, err)
		}
		parsed[i] = p
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, n := range parsed {
		link, err := s.byName(want[i].Device)
		if err == nil {
			err = notLoopback("device", link)
		}
		if err != nil {
			return fmt.Errorf("ARPNeighbors[%d]: neighbour on %s: %w", i, want[i].Device, err)
		}
		n.LinkIndex = link.Attrs().Index
	}
	for i, n := range parsed {
		if err := s.handle.NeighSet(n); err != nil {
			return fmt.Errorf("set neighbour %s on %s: %w", n.IP, want[i].Device, err)
		}
	}
	return nil
}

func (n Neighbor) parse() (*netlink.Neigh, error) {
	if err := checkName("device", n.Device); err != nil {
		return nil, err
	}
	ip, err := parseIP("toIPAddress", n.IP)
	if err != nil {
		return nil, err
	}
	out := &netlink.Neigh{
		IP:    ip.AsSlice(),
		State: int(uint16(n.State)),
		Flags: int(uint8(n.Flags)),
	}
	if out.State == 0 {
		out.State = netlink.NUD_PERMANENT
	}
	out.Family = netlink.FAMILY_V4
	if ip.Is6() {
		out.Family = netlink.FAMILY_V6
	}
	if n.HWAddr == "" {
		return out, nil
	}
	out.HardwareAddr, err = parseMAC("lladdr", n.HWAddr)
	return out, err
}
