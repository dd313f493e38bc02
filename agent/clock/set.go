package clock

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/containerd/errdefs"
)

// release is the floor where nothing else gives one: no certificate that this
// version has to do with ends before the year it was made in.
const release = 1767225600 // 2026-01-01 UTC

// Set sets the clock to what the host says, seconds and microseconds since the
// epoch: a shim does so for a guest that was restored from a template. The time
// must not lie before the floor, nor more than maxAhead behind it. A guest that
// must not believe its host is not to be asked.
func (k *Keeper) Set(ctx context.Context, sec, usec int64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	floor := k.floor
	if earliest := time.Unix(release, 0); floor.Before(earliest) {
		floor = earliest
	}
	if latest := floor.Add(maxAhead); sec < floor.Unix() || sec > latest.Unix() {
		return fmt.Errorf("Sec: %d is not between %d and %d: %w", sec, floor.Unix(), latest.Unix(), errdefs.ErrInvalidArgument)
	}
	if usec < 0 || usec >= 1_000_000 {
		return fmt.Errorf("Usec: %d is no part of a second: %w", usec, errdefs.ErrInvalidArgument)
	}
	to := time.Unix(sec, usec*1000)
	step := to.Sub(k.kernel.Now())
	if err := k.kernel.Set(to); err != nil {
		return fmt.Errorf("set clock: %w", err)
	}
	k.state.Steps++
	slog.WarnContext(ctx, "the host set the clock", "step", step)
	return nil
}
