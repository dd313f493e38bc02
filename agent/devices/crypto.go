package devices

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/mount/device"
)

// cryptoNode leads to all queues of the guest.
const cryptoNode = "z90crypt"

// crypto waits for crypto adapters of IBM Z; those of the cold type are there
// since boot and are only looked for. In a Secure Execution guest a queue has to
// be bound, and mostly associated with a secret, before it may be trusted; this
// agent cannot do that and refuses.
func (a *search) crypto(ctx context.Context, d Device) (*node, error) {
	if a.f.SecureExecution() {
		return nil, fmt.Errorf("%s: binding queues in a Secure Execution guest: %w", d.Type, errdefs.ErrNotImplemented)
	}
	if len(d.Options) == 0 {
		return nil, fmt.Errorf("options: no AP queue: %w", errdefs.ErrInvalidArgument)
	}
	if err := a.f.RescanAP(); err != nil {
		return nil, err
	}
	for _, o := range d.Options {
		queue, err := device.ParseAPQueue(o)
		if err != nil {
			return nil, fmt.Errorf("options: %w", err)
		}
		if _, err := a.f.Wait(ctx, queue); err != nil {
			return nil, err
		}
	}
	return a.charNode(cryptoNode)
}
