package guest

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// The clock decides which certificates and tokens are believed. So it is never
// set before the year this version was made for, nor far beyond any life of it.
const (
	earliestClock = 1767225600 // 2026-01-01 UTC
	latestClock   = 4102444800 // 2100-01-01 UTC
)

// SetClock sets the guest's wall clock, as the shim asks after a guest was
// restored from a template.
func SetClock(ctx context.Context, sec, usec int64) error {
	if sec < earliestClock || sec >= latestClock {
		return fmt.Errorf("Sec: %d is not between %d and %d: %w", sec, int64(earliestClock), int64(latestClock), errdefs.ErrInvalidArgument)
	}
	if usec < 0 || usec >= 1_000_000 {
		return fmt.Errorf("Usec: %d is no part of a second: %w", usec, errdefs.ErrInvalidArgument)
	}
	tv := unix.Timeval{Sec: sec, Usec: usec}
	step := time.Until(time.Unix(sec, usec*1000))
	if err := unix.Settimeofday(&tv); err != nil {
		return fmt.Errorf("set clock: %w", err)
	}
	slog.InfoContext(ctx, "the host set the clock", "step", step.String())
	return nil
}
