package network

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Address is an address as the shims write it: Mask is the prefix length in
// decimal. The family follows from the address itself, whatever the request
// says.
type Address struct {
	Address string
	Mask    string
}

// parse turns the address into the kernel's form. IPv6 addresses skip duplicate
// address detection: the host's network plugin assigned them, and a tentative
// address would make the kernel refuse a route that names it as its source.
func (a Address) parse() (*netlink.Addr, error) {
	ip, err := parseIP("address", a.Address)
	if err != nil {
		return nil, err
	}
	if ip.IsLoopback() || ip.IsUnspecified() || ip.IsMulticast() {
		return nil, fmt.Errorf("address: no address for an interface of the pod: %w", errdefs.ErrInvalidArgument)
	}
	bits, err := strconv.ParseUint(a.Mask, 10, 8)
	if err != nil || int(bits) > ip.BitLen() {
		return nil, fmt.Errorf("mask: not a prefix length: %w", errdefs.ErrInvalidArgument)
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(int(bits), ip.BitLen())}}
	if ip.Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	return addr, nil
}

func parseIP(field, text string) (netip.Addr, error) {
	ip, err := netip.ParseAddr(text)
	if err != nil || ip.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("%s: not an IP address: %w", field, errdefs.ErrInvalidArgument)
	}
	return ip.Unmap(), nil
}

// parsePrefix reads "a.b.c.d/n", or a plain address as a prefix of full length.
func parsePrefix(field, text string) (netip.Prefix, error) {
	if !strings.Contains(text, "/") {
		ip, err := parseIP(field, text)
		if err != nil {
			return netip.Prefix{}, err
		}
		return netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%s: not a network: %w", field, errdefs.ErrInvalidArgument)
	}
	return p, nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	p = p.Masked()
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func parseMAC(field, text string) (net.HardwareAddr, error) {
	mac, err := net.ParseMAC(text)
	if err != nil {
		return nil, fmt.Errorf("%s: not a hardware address: %w", field, errdefs.ErrInvalidArgument)
	}
	return mac, nil
}
