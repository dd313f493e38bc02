package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Route is one entry of the main table. An empty Dest is the default route of
// the family; IPv6 says which family when neither Dest nor Gateway tells. A
// plain Source address is the preferred source of packets.
type Route struct {
	Dest    string
	Gateway string
	Device  string
	Source  string
	Scope   uint32
	IPv6    bool
	Flags   uint32
	MTU     uint32
}

// settableFlags are the flags of a next hop that are a wish. The others describe
// the state of the host's link, and the kernel refuses some of them.
const settableFlags = unix.RTNH_F_ONLINK | unix.RTNH_F_PERVASIVE

// UpdateRoutes adds or replaces the routes and returns the main table as it is
// then. Routes without a gateway go first, because a gateway is reachable only
// through one of them. Nothing is deleted.
func (s *Stack) UpdateRoutes(ctx context.Context, want []Route) ([]Route, error) {
	if err := checkCount("Routes", len(want)); err != nil {
		return nil, err
	}
	parsed := make([]*netlink.Route, len(want))
	for i, r := range want {
		p, err := r.parse()
		if err != nil {
			return nil, fmt.Errorf("route %d: %w", i, err)
		}
		parsed[i] = p
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, gateway := range []bool{false, true} {
		for i, r := range parsed {
			if (r.Gw != nil) != gateway {
				continue
			}
			if err := s.replace(r, want[i]); err != nil {
				return nil, err
			}
		}
	}
	return s.ListRoutes(ctx)
}

func (s *Stack) replace(r *netlink.Route, want Route) error {
	link, err := s.byName(want.Device)
	if err != nil {
		return fmt.Errorf("route through %s: %w", want.Device, err)
	}
	r.LinkIndex = link.Attrs().Index
	if err := s.handle.RouteReplace(r); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add route to %s through %s: %w", r.Dst, want.Device, err)
	}
	return nil
}

// parse checks a route as far as that is possible without the kernel.
func (r Route) parse() (*netlink.Route, error) {
	if err := checkName("device", r.Device); err != nil {
		return nil, err
	}
	if r.Scope > 255 {
		return nil, fmt.Errorf("scope: too large: %w", errdefs.ErrInvalidArgument)
	}
	out := &netlink.Route{
		Table:    unix.RT_TABLE_MAIN,
		Protocol: unix.RTPROT_BOOT,
		Type:     unix.RTN_UNICAST,
		Scope:    netlink.Scope(r.Scope),
		Flags:    int(r.Flags & settableFlags),
		MTU:      int(r.MTU),
	}
	v6 := r.IPv6
	if r.Gateway != "" {
		gw, err := parseIP("gateway", r.Gateway)
		if err != nil {
			return nil, err
		}
		out.Gw, v6 = gw.AsSlice(), gw.Is6()
	}
	dst, err := r.destination(v6)
	if err != nil {
		return nil, err
	}
	out.Dst = ipNet(dst)
	src, err := r.source()
	out.Src = src
	return out, err
}

func (r Route) destination(v6 bool) (netip.Prefix, error) {
	if r.Dest != "" {
		return parsePrefix("dest", r.Dest)
	}
	if v6 {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0), nil
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0), nil
}

// source returns the preferred source address. A network as source would ask
// for source routing, which no shim sends and the IPv4 table does not know.
func (r Route) source() (net.IP, error) {
	if r.Source == "" {
		return nil, nil
	}
	p, err := parsePrefix("source", r.Source)
	if err != nil {
		return nil, err
	}
	if !p.IsSingleIP() {
		return nil, fmt.Errorf("source: must be a single address: %w", errdefs.ErrInvalidArgument)
	}
	return p.Addr().AsSlice(), nil
}

// ListRoutes describes the main table of both families. Default routes carry
// the destination 0.0.0.0/0 or ::/0.
func (s *Stack) ListRoutes(context.Context) ([]Route, error) {
	links, err := s.handle.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	var all []Route
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := s.handle.RouteList(nil, family)
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, r := range routes {
			if r.Type == unix.RTN_UNICAST {
				all = append(all, describe(r, names[r.LinkIndex]))
			}
		}
	}
	return all, nil
}

func describe(r netlink.Route, device string) Route {
	out := Route{
		Device: device,
		Scope:  uint32(r.Scope),
		IPv6:   r.Family == netlink.FAMILY_V6,
		Flags:  uint32(r.Flags & settableFlags),
		MTU:    uint32(r.MTU),
	}
	switch {
	case r.Dst != nil:
		out.Dest = r.Dst.String()
	case out.IPv6:
		out.Dest = "::/0"
	default:
		out.Dest = "0.0.0.0/0"
	}
	if r.Gw != nil {
		out.Gateway = r.Gw.String()
	}
	if r.Src != nil {
		out.Source = r.Src.String()
	}
	return out
}
