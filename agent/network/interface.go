package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/mount/device"
)

// Interface is one network interface, as a request describes it or as the
// kernel has it. MTU 0 leaves the kernel's. Of Flags only IFF_NOARP counts.
type Interface struct {
	Name       string
	Addresses  []Address
	MTU        uint64
	HWAddr     string
	DevicePath string // PCI path or channel device to wait for; may be empty
	Flags      uint32
}

// errLinkNotFound carries the words that the Go shim retries on while the host
// is still plugging the device in; with any other text it gives up at once.
var errLinkNotFound = fmt.Errorf("Link not found: %w", errdefs.ErrNotFound) // the shim matches this spelling

// target is a request that has passed its checks.
type target struct {
	Interface
	mac   net.HardwareAddr // nil when the request names none
	addrs []*netlink.Addr
}

// UpdateInterface makes an interface look as requested: name, addresses, MTU,
// ARP, up. The interface is the one with the hardware address, else the one with
// the name, which then takes the address over. It is taken down only when its
// name or hardware address changes, because going down drops its routes; asking
// twice therefore changes nothing. Addresses that the request does not mention
// stay. What fails halfway is taken back. A missing interface is an error with
// the text "Link not found".
//
// The loopback interface is the guest's own: it is neither configured nor
// renamed, and no other interface gets an address of it.
func (s *Stack) UpdateInterface(ctx context.Context, want Interface) error {
	t, err := want.check()
	if err != nil {
		return err
	}
	// The wait may last seconds and happens outside the lock, so that an
	// interface that never comes holds up nobody else.
	device, err := s.awaitDevice(ctx, t)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	link, err := s.find(ctx, t, device)
	if err != nil {
		return fmt.Errorf("update interface %s: %w", t.Name, err)
	}
	if err := notLoopback("name", link); err != nil {
		return fmt.Errorf("update interface %s: %w", t.Name, err)
	}
	was, err := s.remember(link)
	if err != nil {
		return err
	}
	if err := s.apply(link, t); err != nil {
		return errors.Join(err, s.restore(link.Attrs().Index, was))
	}
	return nil
}

func (s *Stack) apply(link netlink.Link, t target) error {
	if err := s.rename(link, t.Name); err != nil {
		return fmt.Errorf("name interface %s: %w", t.Name, err)
	}
	return s.configure(link, t)
}

func (i Interface) check() (target, error) {
	t := target{Interface: i}
	if err := checkName("name", i.Name); err != nil {
		return t, err
	}
	if err := checkCount("IPAddresses", len(i.Addresses)); err != nil {
		return t, err
	}
	if i.MTU > 1<<24 {
		return t, fmt.Errorf("mtu: too large: %w", errdefs.ErrInvalidArgument)
	}
	if i.HWAddr != "" {
		mac, err := parseMAC("hwAddr", i.HWAddr)
		if err != nil {
			return t, err
		}
		t.mac = mac
	}
	for n, a := range i.Addresses {
		addr, err := a.parse()
		if err != nil {
			return t, fmt.Errorf("IPAddresses[%d].%w", n, err)
		}
		t.addrs = append(t.addrs, addr)
	}
	return t, nil
}

// cardTime bounds the wait for a card within one call. Shims ask again when the
// link is not there, up to twenty times, and give their calls a minute: with all
// of that a card that never comes would keep a pod for as many minutes.
const cardTime = 4 * time.Second

// awaitDevice returns the kernel's name of the device at the requested path, or
// "" when the request names no path.
func (s *Stack) awaitDevice(ctx context.Context, t target) (string, error) {
	if t.DevicePath == "" || s.finder == nil {
		return "", nil
	}
	card, err := device.ParseNet(t.DevicePath)
	if err != nil {
		return "", fmt.Errorf("devicePath: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, cardTime)
	defer cancel()
	name, err := s.finder.Wait(ctx, card)
	if err != nil {
		return "", fmt.Errorf("wait for the device of %s: %w: %w", t.Name, errLinkNotFound, err)
	}
	return name, nil
}

func (s *Stack) find(ctx context.Context, t target, device string) (netlink.Link, error) {
	if t.mac == nil {
		return s.byName(t.Name)
	}
	if device != "" {
		// A virtual function comes with a random address. That it takes the
		// requested one is a wish; the lookup below decides.
		if err := s.adopt(device, t.mac); err != nil {
			slog.WarnContext(ctx, "hardware address not set", "interface", device, "error", err)
		}
	}
	link, err := s.byMAC(t.mac)
	if !errors.Is(err, errLinkNotFound) {
		return link, err
	}
	if err := s.adopt(t.Name, t.mac); err != nil {
		return nil, err
	}
	return s.byMAC(t.mac)
}

// adopt gives the link of this name the hardware address.
func (s *Stack) adopt(name string, mac net.HardwareAddr) error {
	link, err := s.byName(name)
	if err != nil {
		return err
	}
	if err := notLoopback("name", link); err != nil {
		return err
	}
	if bytes.Equal(link.Attrs().HardwareAddr, mac) {
		return nil
	}
	if err := s.handle.LinkSetDown(link); err != nil {
		return err
	}
	return s.handle.LinkSetHardwareAddr(link, mac)
}

// notLoopback keeps the host's hands off the loopback interface: the workload
// API listens there, and services trust that nobody from outside reaches it.
func notLoopback(field string, link netlink.Link) error {
	if link.Attrs().Flags&net.FlagLoopback != 0 {
		return fmt.Errorf("%s: %s is the loopback interface: %w", field, link.Attrs().Name, errdefs.ErrPermissionDenied)
	}
	return nil
}

func (s *Stack) byName(name string) (netlink.Link, error) {
	link, err := s.handle.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil, errLinkNotFound
	}
	return link, err
}

func (s *Stack) byMAC(mac net.HardwareAddr) (netlink.Link, error) {
	links, err := s.handle.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	for _, l := range links {
		if bytes.Equal(l.Attrs().HardwareAddr, mac) {
			return l, nil
		}
	}
	return nil, errLinkNotFound
}

// rename gives link the name, taking it from another link if need be. The other
// one then gets the old name of ours: the host names interfaces in the order it
// plugs them, and two may have come up crosswise.
func (s *Stack) rename(link netlink.Link, name string) error {
	old := link.Attrs().Name
	if old == name {
		return nil
	}
	holder, err := s.byName(name)
	if errors.Is(err, errLinkNotFound) {
		return s.setName(link, name)
	}
	if err != nil {
		return err
	}
	if err := notLoopback("name", holder); err != nil {
		return err
	}
	if err := s.setName(holder, fmt.Sprintf("swap%d", holder.Attrs().Index)); err != nil {
		return err
	}
	if err := s.setName(link, name); err != nil {
		return errors.Join(err, s.setName(holder, name))
	}
	if err := s.setName(holder, old); err != nil {
		return err
	}
	if holder.Attrs().Flags&net.FlagUp == 0 {
		return nil
	}
	return s.handle.LinkSetUp(holder)
}

// setName renames a link. Before Linux 6.2 only one that is down takes a name,
// and going down costs it its routes and IPv6 addresses, so that comes second.
func (s *Stack) setName(link netlink.Link, name string) error {
	err := s.handle.LinkSetName(link, name)
	if !errors.Is(err, unix.EBUSY) {
		return err
	}
	if err := s.handle.LinkSetDown(link); err != nil {
		return err
	}
	return s.handle.LinkSetName(link, name)
}

func (s *Stack) configure(link netlink.Link, t target) error {
	if t.MTU != 0 && int(t.MTU) != link.Attrs().MTU {
		if err := s.handle.LinkSetMTU(link, int(t.MTU)); err != nil {
			return fmt.Errorf("mtu: set that of %s: %w", t.Name, refused(err))
		}
	}
	setARP := s.handle.LinkSetARPOn
	if t.Flags&unix.IFF_NOARP != 0 {
		setARP = s.handle.LinkSetARPOff
	}
	if err := setARP(link); err != nil {
		return fmt.Errorf("set arp of %s: %w", t.Name, err)
	}
	if err := s.handle.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring %s up: %w", t.Name, err)
	}
	v6 := s.ipv6Enabled()
	for _, a := range t.addrs {
		if a.IP.To4() == nil && !v6 {
			continue
		}
		if err := s.handle.AddrReplace(link, a); err != nil {
			return fmt.Errorf("IPAddresses: add %s to %s: %w", a.IPNet, t.Name, refused(err))
		}
	}
	return nil
}

// refused gives the kernel's word for a value it does not take its class.
func refused(err error) error {
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ERANGE) || errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	return err
}

// ipv6Enabled is false only when both switches say so; a kernel without IPv6
// has no switches and is left to refuse the address by itself.
func (s *Stack) ipv6Enabled() bool {
	for _, which := range []string{"all", "default"} {
		b, err := os.ReadFile(filepath.Join(s.proc, "sys/net/ipv6/conf", which, "disable_ipv6"))
		if err != nil || strings.TrimSpace(string(b)) != "1" {
			return true
		}
	}
	return false
}

// ListInterfaces describes every link of the namespace.
func (s *Stack) ListInterfaces(context.Context) ([]Interface, error) {
	links, err := s.handle.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	var all []Interface
	for _, l := range links {
		a := l.Attrs()
		addrs, err := s.handle.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			return nil, fmt.Errorf("list addresses of %s: %w", a.Name, err)
		}
		i := Interface{Name: a.Name, MTU: uint64(a.MTU), HWAddr: strings.ToUpper(a.HardwareAddr.String())}
		for _, addr := range addrs {
			bits, _ := addr.Mask.Size()
			i.Addresses = append(i.Addresses, Address{Address: addr.IP.String(), Mask: fmt.Sprint(bits)})
		}
		all = append(all, i)
	}
	return all, nil
}
