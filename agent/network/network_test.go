package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/mount/device"
)

// newNamespace moves the test to a network namespace of its own, with a link
// per name, and returns a Stack bound to it. The thread is never unlocked,
// so it ends with the test.
func newNamespace(t *testing.T, f Finder, links ...string) *Stack {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to make a network namespace")
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skip("cannot make a network namespace:", err)
	}
	s, err := Open(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	s.proc = "/proc/thread-self/../.."
	for _, name := range links {
		a := netlink.NewLinkAttrs()
		a.Name = name
		veth := netlink.NewVeth(a)
		veth.PeerName = "peer" + name
		if err := s.handle.LinkAdd(veth); err != nil {
			t.Skip("cannot make a veth link:", err)
		}
	}
	return s
}

func macOf(t *testing.T, s *Stack, name string) string {
	t.Helper()
	l, err := s.handle.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return l.Attrs().HardwareAddr.String()
}

func find(t *testing.T, s *Stack, name string) Interface {
	t.Helper()
	all, err := s.ListInterfaces(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(i Interface) bool { return i.Name == name })
	if i < 0 {
		t.Fatalf("no interface %s in %+v", name, all)
	}
	return all[i]
}

func TestUpdateInterface(t *testing.T) {
	s := newNamespace(t, nil, "dummy0", "dummy1")
	mac := macOf(t, s, "dummy0")
	want := Interface{
		Name: "eth0", MTU: 1400, HWAddr: mac, Flags: unix.IFF_NOARP,
		Addresses: []Address{{"10.9.0.2", "24"}, {"fd00:9::2", "64"}},
	}
	if err := s.UpdateInterface(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	got := find(t, s, "eth0")
	if got.MTU != 1400 || got.HWAddr != strings.ToUpper(mac) {
		t.Errorf("got %+v", got)
	}
	for _, a := range want.Addresses {
		if !slices.Contains(got.Addresses, a) {
			t.Errorf("address %v missing in %v", a, got.Addresses)
		}
	}
	link, err := s.handle.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if f := link.Attrs().RawFlags; f&unix.IFF_UP == 0 || f&unix.IFF_NOARP == 0 {
		t.Errorf("flags %#x: not up without arp", f)
	}
}

// A repeated request must not take the link down: the routes would go.
func TestUpdateInterfaceKeepsRoutes(t *testing.T) {
	s := newNamespace(t, nil, "eth0")
	want := Interface{Name: "eth0", HWAddr: macOf(t, s, "eth0"), Addresses: []Address{{"10.9.0.2", "24"}}}
	if err := s.UpdateInterface(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	if _, err := s.UpdateRoutes(t.Context(), []Route{{Gateway: "10.9.0.1", Device: "eth0"}}); err != nil {
		t.Fatal(err)
	}
	if err := s.UpdateInterface(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	routes, err := s.ListRoutes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(routes, func(r Route) bool { return r.Dest == "0.0.0.0/0" && r.Gateway == "10.9.0.1" }) {
		t.Errorf("default route lost: %+v", routes)
	}
}

func TestUpdateInterfaceSwapsNames(t *testing.T) {
	s := newNamespace(t, nil, "eth0", "eth1")
	zero, one := macOf(t, s, "eth0"), macOf(t, s, "eth1")
	if err := s.UpdateInterface(t.Context(), Interface{Name: "eth0", HWAddr: one}); err != nil {
		t.Fatal(err)
	}
	if got := macOf(t, s, "eth0"); got != one {
		t.Errorf("eth0 has %s, want %s", got, one)
	}
	if got := macOf(t, s, "eth1"); got != zero {
		t.Errorf("eth1 has %s, want %s", got, zero)
	}
}

func TestUpdateInterfaceByName(t *testing.T) {
	s := newNamespace(t, nil, "eth0")
	if err := s.UpdateInterface(t.Context(), Interface{Name: "eth0", HWAddr: "02:00:00:00:00:07"}); err != nil {
		t.Fatal(err)
	}
	if got := macOf(t, s, "eth0"); got != "02:00:00:00:00:07" {
		t.Errorf("hardware address %s", got)
	}
}

type finder struct {
	name string
	err  error
}

func (f finder) Wait(context.Context, device.Matcher) (string, error) { return f.name, f.err }

func TestUpdateInterfaceWaits(t *testing.T) {
	s := newNamespace(t, finder{name: "enp2s3"}, "enp2s3")
	want := Interface{Name: "eth0", HWAddr: "02:00:00:00:00:08", DevicePath: "02/03"}
	if err := s.UpdateInterface(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	if got := macOf(t, s, "eth0"); got != "02:00:00:00:00:08" {
		t.Errorf("hardware address %s", got)
	}
	want.DevicePath = "../../02"
	if err := s.UpdateInterface(t.Context(), want); !errdefs.IsInvalidArgument(err) {
		t.Errorf("bad path: got %v", err)
	}
}

// impatient looks how long it may wait.
type impatient struct{ until time.Time }

func (f *impatient) Wait(ctx context.Context, _ device.Matcher) (string, error) {
	f.until, _ = ctx.Deadline()
	return "", errdefs.ErrUnavailable
}

// A shim that asks twenty times must not wait its whole minute in each call.
func TestUpdateInterfaceWaitsBriefly(t *testing.T) {
	f := &impatient{}
	s := newNamespace(t, f)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := s.UpdateInterface(ctx, Interface{Name: "eth0", DevicePath: "02/03"})
	if err == nil || !strings.Contains(err.Error(), "Link not found") {
		t.Errorf("got %v", err)
	}
	if whole, _ := ctx.Deadline(); f.until.IsZero() || whole.Sub(f.until) < 50*time.Second {
		t.Errorf("it may wait until %v of %v", f.until, whole)
	}
}

func TestMissingLink(t *testing.T) {
	s := newNamespace(t, finder{err: errdefs.ErrNotFound}, "eth0")
	for name, want := range map[string]Interface{
		"by name":     {Name: "eth9"},
		"by address":  {Name: "eth9", HWAddr: "02:00:00:00:00:09"},
		"device wait": {Name: "eth9", DevicePath: "02/03"},
	} {
		t.Run(name, func(t *testing.T) {
			err := s.UpdateInterface(t.Context(), want)
			if !errors.Is(err, errdefs.ErrNotFound) || !strings.Contains(err.Error(), "Link not found") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestInterfaceChecks(t *testing.T) {
	for name, i := range map[string]Interface{
		"no name":         {},
		"path as name":    {Name: "../eth0"},
		"long name":       {Name: "abcdefghijklmnop"},
		"address":         {Name: "eth0", Addresses: []Address{{"10.0.0.256", "24"}}},
		"zone":            {Name: "eth0", Addresses: []Address{{"fe80::1%eth0", "64"}}},
		"mask":            {Name: "eth0", Addresses: []Address{{"10.0.0.1", "33"}}},
		"mask not number": {Name: "eth0", Addresses: []Address{{"10.0.0.1", "255.0.0.0"}}},
		"mac":             {Name: "eth0", HWAddr: "zz"},
		"mtu":             {Name: "eth0", MTU: 1 << 40},
		"too many":        {Name: "eth0", Addresses: make([]Address, maxEntries+1)},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := i.check(); !errdefs.IsInvalidArgument(err) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestRoutes(t *testing.T) {
	s := newNamespace(t, nil, "eth0")
	if err := s.UpdateInterface(t.Context(), Interface{Name: "eth0", Addresses: []Address{{"10.9.0.2", "24"}, {"fd00:9::2", "64"}}}); err != nil {
		t.Fatal(err)
	}
	// The gateway of the first lies in the network of the second: only the
	// order of the stack makes this work.
	want := []Route{
		{Dest: "0.0.0.0/0", Gateway: "192.168.77.1", Device: "eth0"},
		{Dest: "192.168.77.0/24", Device: "eth0", Scope: 253, Source: "10.9.0.2", Flags: unix.RTNH_F_LINKDOWN},
		{Dest: "", Gateway: "fd00:9::1", Device: "eth0", IPv6: true, Source: "fd00:9::2"},
		{Dest: "10.50.0.1/16", Device: "eth0", MTU: 1300, Scope: 253},
	}
	for range 2 { // repeatable
		got, err := s.UpdateRoutes(t.Context(), want)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range []Route{
			{Dest: "0.0.0.0/0", Gateway: "192.168.77.1", Device: "eth0"},
			{Dest: "192.168.77.0/24", Device: "eth0", Scope: 253, Source: "10.9.0.2"},
			{Dest: "::/0", Gateway: "fd00:9::1", Device: "eth0", IPv6: true, Source: "fd00:9::2"},
			{Dest: "10.50.0.0/16", Device: "eth0", MTU: 1300, Scope: 253},
		} {
			if !slices.Contains(got, w) {
				t.Errorf("route %+v missing in %+v", w, got)
			}
		}
	}
	_, err := s.UpdateRoutes(t.Context(), []Route{{Dest: "10.60.0.0/16", Device: "eth7"}})
	if !errdefs.IsNotFound(err) {
		t.Errorf("route through a missing device: %v", err)
	}
}

func TestRouteChecks(t *testing.T) {
	for name, r := range map[string]Route{
		"no device": {Dest: "10.0.0.0/8"},
		"dest":      {Dest: "10.0.0.0/40", Device: "eth0"},
		"mapped":    {Dest: "::ffff:10.0.0.0/104", Device: "eth0"},
		"gateway":   {Gateway: "10.0.0.0/8", Device: "eth0"},
		"source":    {Source: "10.0.0.0/8", Device: "eth0"},
		"scope":     {Dest: "10.0.0.0/8", Device: "eth0", Scope: 256},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := r.parse(); !errdefs.IsInvalidArgument(err) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestAddNeighbors(t *testing.T) {
	s := newNamespace(t, nil, "eth0")
	if err := s.UpdateInterface(t.Context(), Interface{Name: "eth0", Addresses: []Address{{"10.9.0.2", "24"}}}); err != nil {
		t.Fatal(err)
	}
	if err := s.AddNeighbors(t.Context(), []Neighbor{{IP: "10.9.0.1", Device: "eth0", HWAddr: "02:00:00:00:00:01"}}); err != nil {
		t.Fatal(err)
	}
	link, _ := s.handle.LinkByName("eth0")
	all, err := s.handle.NeighList(link.Attrs().Index, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(all, func(n netlink.Neigh) bool {
		return n.IP.String() == "10.9.0.1" && n.State == netlink.NUD_PERMANENT && n.HardwareAddr.String() == "02:00:00:00:00:01"
	}) {
		t.Errorf("not there: %+v", all)
	}
	for name, n := range map[string]Neighbor{
		"no address": {Device: "eth0"},
		"mac":        {Device: "eth0", IP: "10.9.0.1", HWAddr: "02"},
		"device":     {Device: "a/b", IP: "10.9.0.1"},
	} {
		if err := s.AddNeighbors(t.Context(), []Neighbor{n}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestLoopbackUp(t *testing.T) {
	s := newNamespace(t, nil)
	if err := s.LoopbackUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	lo, _ := s.handle.LinkByName("lo")
	if lo.Attrs().RawFlags&unix.IFF_UP == 0 {
		t.Error("lo is down")
	}
}

// The loopback interface is not the host's, under whatever name it asks.
func TestLoopbackIsOurs(t *testing.T) {
	s := newNamespace(t, nil, "eth0")
	if err := s.LoopbackUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	before, _ := s.ListInterfaces(t.Context())
	route := func(r Route) error {
		_, err := s.UpdateRoutes(t.Context(), []Route{r})
		return err
	}
	for name, err := range map[string]error{
		"by name":          s.UpdateInterface(t.Context(), Interface{Name: "lo", MTU: 100}),
		"its address":      s.UpdateInterface(t.Context(), Interface{Name: "lo", HWAddr: "02:00:00:00:00:01"}),
		"its name":         s.UpdateInterface(t.Context(), Interface{Name: "lo", HWAddr: macOf(t, s, "eth0")}),
		"route through it": route(Route{Dest: "10.1.0.0/16", Device: "lo"}),
		"route to it":      route(Route{Dest: "127.0.0.0/8", Device: "eth0"}),
		"IPv6 route to it": route(Route{Dest: "::1/128", Device: "eth0", IPv6: true}),
		"neighbour on it":  s.AddNeighbors(t.Context(), []Neighbor{{IP: "10.9.0.1", Device: "lo", HWAddr: "02:00:00:00:00:01"}}),
	} {
		if !errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), "loopback interface") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// It has no hardware address that could be asked for.
	if err := s.UpdateInterface(t.Context(), Interface{Name: "eth9", HWAddr: "00:00:00:00:00:00"}); !errdefs.IsNotFound(err) {
		t.Errorf("by address: %v", err)
	}
	for _, a := range []Address{{"127.0.0.2", "8"}, {"::1", "128"}, {"::ffff:127.0.0.1", "8"}, {"0.0.0.0", "0"}, {"224.0.0.1", "4"}} {
		err := s.UpdateInterface(t.Context(), Interface{Name: "eth0", Addresses: []Address{a}})
		if !errdefs.IsInvalidArgument(err) || !strings.HasPrefix(err.Error(), "IPAddresses[0].address: ") {
			t.Errorf("address %s: %v", a.Address, err)
		}
	}
	if after, _ := s.ListInterfaces(t.Context()); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("interfaces changed from\n%v to\n%v", before, after)
	}
}

// Routes come in any order: each gateway is reached through another route.
func TestRoutesDependOnEachOther(t *testing.T) {
	s := newNamespace(t, nil, "eth0")
	if err := s.UpdateInterface(t.Context(), Interface{Name: "eth0", Addresses: []Address{{"10.9.0.2", "24"}, {"fd00:9::2", "64"}}}); err != nil {
		t.Fatal(err)
	}
	want := []Route{
		{Dest: "0.0.0.0/0", Gateway: "172.16.0.1", Device: "eth0"},
		{Dest: "172.16.0.0/24", Gateway: "192.168.77.1", Device: "eth0", Flags: unix.RTNH_F_ONLINK},
		{Dest: "192.168.77.1/32", Device: "eth0", Scope: 253},
		{Dest: "::/0", Gateway: "fd00:77::1", Device: "eth0", IPv6: true},
		{Dest: "fd00:77::1/128", Device: "eth0", IPv6: true},
		{Dest: "10.77.0.0/16", Gateway: "10.200.0.1", Device: "eth0", Flags: unix.RTNH_F_ONLINK},
	}
	// What a gateway is reached through must have link scope for IPv4.
	want[0].Flags = unix.RTNH_F_ONLINK
	got, err := s.UpdateRoutes(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range want {
		if !slices.ContainsFunc(got, func(r Route) bool { return r.Dest == w.Dest && r.Gateway == w.Gateway }) {
			t.Errorf("%+v is missing in %+v", w, got)
		}
	}
}

// A request that fails halfway leaves the table as it was.
func TestRoutesAreAllOrNone(t *testing.T) {
	s := newNamespace(t, nil, "eth0")
	if err := s.UpdateInterface(t.Context(), Interface{Name: "eth0", Addresses: []Address{{"10.9.0.2", "24"}}}); err != nil {
		t.Fatal(err)
	}
	before, err := s.UpdateRoutes(t.Context(), []Route{{Gateway: "10.9.0.1", Device: "eth0"}, {Dest: "10.1.0.0/16", Device: "eth0", Scope: 253, MTU: 1300}})
	if err != nil {
		t.Fatal(err)
	}
	for name, last := range map[string]Route{
		"no way to the gateway": {Dest: "10.2.0.0/16", Gateway: "203.0.113.1", Device: "eth0"},
		"no device":             {Dest: "10.2.0.0/16", Device: "eth7"},
		"mixed families":        {Dest: "10.2.0.0/16", Gateway: "fd00::1", Device: "eth0"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.UpdateRoutes(t.Context(), []Route{
				{Dest: "10.1.0.0/16", Device: "eth0", Scope: 253, MTU: 1200},
				{Gateway: "10.9.0.77", Device: "eth0"}, {Dest: "10.3.0.0/16", Device: "eth0", Scope: 253}, last,
			})
			if !errdefs.IsInvalidArgument(err) && !errdefs.IsNotFound(err) {
				t.Errorf("got %v", err)
			}
			after, err := s.ListRoutes(t.Context())
			if err != nil || fmt.Sprint(after) != fmt.Sprint(before) {
				t.Errorf("table changed from\n%v to\n%v, %v", before, after, err)
			}
		})
	}
}

// The link that gives its name away keeps its addresses and routes, where the
// kernel renames links that are up.
func TestSwapKeepsTheOthersRoutes(t *testing.T) {
	s := newNamespace(t, nil, "eth0", "eth1")
	one := macOf(t, s, "eth1")
	if err := s.UpdateInterface(t.Context(), Interface{Name: "eth0", Addresses: []Address{{"10.9.0.2", "24"}, {"fd00:9::2", "64"}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.UpdateRoutes(t.Context(), []Route{{Gateway: "10.9.0.1", Device: "eth0"}, {Gateway: "fd00:9::1", Device: "eth0"}}); err != nil {
		t.Fatal(err)
	}
	if err := s.UpdateInterface(t.Context(), Interface{Name: "eth0", HWAddr: one}); err != nil {
		t.Fatal(err)
	}
	if got := find(t, s, "eth1").Addresses; !slices.Contains(got, Address{"10.9.0.2", "24"}) {
		t.Errorf("addresses of the other: %v", got)
	}
	routes, err := s.ListRoutes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, gateway := range []string{"10.9.0.1", "fd00:9::1"} {
		if !slices.ContainsFunc(routes, func(r Route) bool { return r.Gateway == gateway && r.Device == "eth1" }) {
			if major, minor := kernelVersion(t); major < 6 || major == 6 && minor < 2 {
				t.Skip("this kernel takes a link down to rename it")
			}
			t.Errorf("the route by %s is lost: %+v", gateway, routes)
		}
	}
}

func kernelVersion(t *testing.T) (major, minor int) {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	return major, minor
}

// What the kernel refuses halfway, behind the new name, leaves no trace.
func TestUpdateInterfaceIsTakenBack(t *testing.T) {
	s := newNamespace(t, nil, "eth0", "eth1")
	if err := s.UpdateInterface(t.Context(), Interface{Name: "eth0", MTU: 1400, Addresses: []Address{{"10.9.0.2", "24"}}}); err != nil {
		t.Fatal(err)
	}
	one := macOf(t, s, "eth1")
	before, err := s.ListInterfaces(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]Interface{
		"mtu": {Name: "eth0", HWAddr: one, MTU: 7},
		// An interface with such a small MTU has no IPv6 (RFC 8200, section 5).
		"second address": {Name: "eth0", HWAddr: one, MTU: 1000, Flags: unix.IFF_NOARP, Addresses: []Address{{"10.8.0.2", "24"}, {"fd00:9::2", "64"}}},
	} {
		err := s.UpdateInterface(t.Context(), want)
		if field := map[string]string{"mtu": "mtu: ", "second address": "IPAddresses: "}[name]; err == nil || !strings.HasPrefix(err.Error(), field) {
			t.Errorf("%s: %v", name, err)
		}
		after, err := s.ListInterfaces(t.Context())
		if err != nil || fmt.Sprint(after) != fmt.Sprint(before) {
			t.Errorf("%s: interfaces changed from\n%v to\n%v, %v", name, before, after, err)
		}
		link, err := s.handle.LinkByName("eth1")
		if err != nil || link.Attrs().RawFlags&(unix.IFF_UP|unix.IFF_NOARP) != 0 {
			t.Errorf("%s: flags %#x, %v", name, link.Attrs().RawFlags, err)
		}
	}
}

// A route to the same destination takes the place of the old one.
func TestRoutesAreReplaced(t *testing.T) {
	s := newNamespace(t, nil, "eth0")
	if err := s.UpdateInterface(t.Context(), Interface{Name: "eth0", Addresses: []Address{{"10.9.0.2", "24"}, {"fd00:9::2", "64"}}}); err != nil {
		t.Fatal(err)
	}
	for _, last := range []string{"1", "7"} {
		got, err := s.UpdateRoutes(t.Context(), []Route{
			{Gateway: "10.9.0." + last, Device: "eth0"}, {Gateway: "fd00:9::" + last, Device: "eth0"},
			{Dest: "10.4.0.0/16", Gateway: "10.9.0." + last, Device: "eth0"},
		})
		if err != nil {
			t.Fatal(err)
		}
		for dest, gateway := range map[string]string{"0.0.0.0/0": "10.9.0." + last, "::/0": "fd00:9::" + last, "10.4.0.0/16": "10.9.0." + last} {
			var gateways []string
			for _, r := range got {
				if r.Dest == dest {
					gateways = append(gateways, r.Gateway)
				}
			}
			if !slices.Equal(gateways, []string{gateway}) {
				t.Errorf("%s goes by %v, want %s", dest, gateways, gateway)
			}
		}
	}
}
