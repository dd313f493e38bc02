package kbs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence"
)

// checkDevices refuses two devices of a kind: the broker reads their statements
// by kind, so several GPUs are one device with a list of statements.
func checkDevices(devices []evidence.Collector) error {
	seen := make(map[evidence.Kind]bool)
	for i, d := range devices {
		if seen[d.Kind()] {
			return fmt.Errorf("kbs: device %d: a second %s: %w", i, d.Kind(), errdefs.ErrInvalidArgument)
		}
		seen[d.Kind()] = true
	}
	return nil
}

// deviceEvidence collects the statements of all devices in one text, "" without
// any. What they sign is nonce and key alone; the platform signs this text. Its
// error names each device that failed by its index.
func (c *Client) deviceEvidence(ctx context.Context, ch challenge, runtime runtimeData) (string, error) {
	if len(c.config.Devices) == 0 {
		return "", nil
	}
	digest, err := bind(ch, runtime)
	if err != nil {
		return "", err
	}
	rd, err := evidence.NewReportData(digest)
	if err != nil {
		return "", err
	}
	statements := make(map[evidence.Kind]json.RawMessage)
	var errs []error
	for i, d := range c.config.Devices {
		e, err := d.Collect(ctx, rd)
		if err != nil {
			errs = append(errs, fmt.Errorf("device %d (%s): %w", i, d.Kind(), err))
			continue
		}
		if !plain(string(e.Data)) {
			errs = append(errs, evidence.DriverHelper.Wrap(fmt.Errorf("device %d (%s): a statement of other than plain characters: %w", i, d.Kind(), errdefs.ErrDataLoss)))
			continue
		}
		statements[d.Kind()] = e.Data
	}
	if len(errs) > 0 {
		return "", fmt.Errorf("attest: %w", errors.Join(errs...))
	}
	text, err := canonical(statements)
	if err != nil {
		return "", fmt.Errorf("attest: encode statements of devices: %w", err)
	}
	return string(text), nil
}
