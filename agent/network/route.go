package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

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
// then, all of them or none. They go in the order in which they depend on each other: those without
// a gateway first, then each whose gateway can be reached by then. Nothing is
// deleted. Routes through or to the loopback are refused.
func (s *Stack) UpdateRoutes(ctx context.Context, want []Route) ([]Route, error) {
	if err := checkCount("Routes", len(want)); err != nil {
		return nil, err
	}
	parsed := make([]*netlink.Route, len(want))
	for i, r := range want {
		p, err := r.parse()
		if err != nil {
			return nil, fmt.Errorf("Routes[%d].%w", i, err)
		}
		parsed[i] = p
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.resolve(parsed, want); err != nil {
		return nil, err
	}
	before, err := s.handle.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	if done, err := s.replaceAll(parsed); err != nil {
		return nil, errors.Join(err, s.takeBack(done, before))
	}
	return s.ListRoutes(ctx)
}

// resolve finds the device of each route before any is changed.
func (s *Stack) resolve(routes []*netlink.Route, want []Route) error {
	for i, r := range routes {
		link, err := s.byName(want[i].Device)
		if err == nil {
			err = notLoopback("device", link)
		}
		if err != nil {
			return fmt.Errorf("Routes[%d]: route through %s: %w", i, want[i].Device, err)
		}
		r.LinkIndex = link.Attrs().Index
	}
	return nil
}

// replaceAll goes over the routes until all are there or a round brings nothing
// more: the kernel takes a gateway only when it knows the way to it. It returns
// those that it set.
func (s *Stack) replaceAll(routes []*netlink.Route) (done []*netlink.Route, err error) {
	pending := slices.Clone(routes)
	slices.SortStableFunc(pending, func(a, b *netlink.Route) int { return cmp.Compare(len(a.Gw), len(b.Gw)) })
	for len(pending) > 0 {
		var blocked []*netlink.Route
		var reason error
		for _, r := range pending {
			err := s.handle.RouteReplace(r)
			switch {
			case err == nil:
				done = append(done, r)
			case noWay(err) && r.Gw != nil:
				blocked, reason = append(blocked, r), err
			case !errors.Is(err, unix.EEXIST):
				return done, fmt.Errorf("add route to %s: %w", r.Dst, err)
			}
		}
		if len(blocked) == len(pending) {
			return done, fmt.Errorf("gateway: no way to %s for the route to %s: %w: %w", blocked[0].Gw, blocked[0].Dst, reason, errdefs.ErrInvalidArgument)
		}
		pending = blocked
	}
	return done, nil
}

// noWay is how IPv4 and IPv6 refuse a gateway.
func noWay(err error) bool {
	return errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.EINVAL)
}

// takeBack removes the routes and sets those again that they had replaced.
func (s *Stack) takeBack(done []*netlink.Route, before []netlink.Route) error {
	var errs []error
	for _, r := range slices.Backward(done) {
		if err := s.handle.RouteDel(r); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("remove route to %s: %w", r.Dst, err))
		}
		for _, old := range before {
			if old.Table == r.Table && old.Priority == r.Priority && old.Dst != nil && old.Dst.String() == r.Dst.String() {
				old.Flags &= settableFlags
				if err := s.handle.RouteReplace(&old); err != nil && !errors.Is(err, unix.EEXIST) {
					errs = append(errs, fmt.Errorf("put back route to %s: %w", r.Dst, err))
				}
			}
		}
	}
	return errors.Join(errs...)
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
	if dst.Addr().IsLoopback() {
		return nil, fmt.Errorf("dest: belongs to the loopback interface: %w", errdefs.ErrPermissionDenied)
	}
	out.Dst = ipNet(dst)
	if r.Gateway != "" && dst.Addr().Is6() != v6 {
		return nil, fmt.Errorf("gateway: is of another family than dest: %w", errdefs.ErrInvalidArgument)
	}
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
