package devices

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/mount/device"
)

// vfio gives the functions of one entry, which form an IOMMU group in the
// guest as they do on the host, to the container's own driver.
func (a *search) vfio(ctx context.Context, d Device) (*node, error) {
	functions, err := a.functions(ctx, d.Options)
	if err != nil {
		return nil, err
	}
	if len(functions) == 0 {
		return nil, fmt.Errorf("options: no function with a place in the guest: %w", errdefs.ErrInvalidArgument)
	}
	var group device.VFIOGroup
	for i, f := range functions {
		g, err := a.f.BindVFIO(f.guest)
		if err != nil {
			return nil, err
		}
		if i > 0 && g != group {
			return nil, fmt.Errorf("%s is in IOMMU group %d and not in %d: %w", f.guest, g, group, errdefs.ErrInvalidArgument)
		}
		group = g
	}
	if _, err := a.f.Wait(ctx, group); err != nil {
		return nil, err
	}
	a.learn(functions)
	return a.charNode(fmt.Sprintf("vfio/%d", group))
}

// guestKernel is about functions that stay with the guest's own driver, so that
// only their addresses are news.
func (a *search) guestKernel(ctx context.Context, d Device) error {
	functions, err := a.functions(ctx, d.Options)
	if err == nil {
		a.learn(functions)
	}
	return err
}

// function is one PCI function, by its address on the host and in the guest.
type function struct{ host, guest string }

func (a *search) learn(fs []function) {
	for _, f := range fs {
		a.pci[f.host] = f.guest
	}
}

// functions waits for the functions of some options.
func (a *search) functions(ctx context.Context, options []string) ([]function, error) {
	var out []function
	for _, o := range options {
		host, place, err := parseOption(o)
		if err != nil {
			return nil, err
		}
		if place == "" {
			// The host could not tell where it is; it is plugged in all the same.
			slog.WarnContext(ctx, "a VFIO function without its place in the guest is left alone", "host", host)
			continue
		}
		p, err := device.ParsePCIPath(place)
		if err != nil {
			return nil, fmt.Errorf("options: %w", err)
		}
		guest, err := a.f.Wait(ctx, device.PCIFunction{Path: p})
		if err != nil {
			return nil, err
		}
		out = append(out, function{host, guest})
	}
	return out, nil
}

// parseOption reads "0000:c8:01.2=02/03": an address of the host and a PCI path
// of the guest, which may be empty.
func parseOption(o string) (host, place string, err error) {
	host, place, ok := strings.Cut(o, "=")
	if !ok || !isAddress(host) {
		return "", "", fmt.Errorf("options: %.80q is not HOSTADDRESS=GUESTPATH: %w", o, errdefs.ErrInvalidArgument)
	}
	return host, place, nil
}

// isAddress accepts a PCI address as Linux writes it, 0000:c8:01.2.
func isAddress(s string) bool {
	const form = "hhhh:hh:hh.o"
	if len(s) != len(form) {
		return false
	}
	for i, c := range []byte(s) {
		digit := c >= '0' && c <= '9'
		switch form[i] {
		case 'h':
			if !digit && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
				return false
			}
		case 'o':
			if c < '0' || c > '7' {
				return false
			}
		default:
			if c != form[i] {
				return false
			}
		}
	}
	return true
}
