// Package clock keeps the guest's time. Certificates and tokens are judged by it,
// and it comes from the host: from the machine's clock at boot, later from the
// paravirtual clock of KVM, as far as there is one. So it is taken within bounds
// that a lying host cannot leave:
//
//	never before     the floor: the build of this program, or what the owner says
//	backward         by slewing alone, which costs the clock 0.05 % of its pace
//	forward          slewing below stepFrom, else steps of at most maxStep a minute;
//	                 the first one, for which there is nothing to compare with, may
//	                 be longer, but never leads maxAhead beyond the floor
//
// A host can thus age the guest, which makes it refuse what is valid, but it can
// not bring a certificate back to life that has expired before the guest's eyes.
package clock

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	interval = 64 * time.Second
	stepFrom = 128 * time.Millisecond
	maxStep  = time.Hour
	maxSlew  = 500 * time.Millisecond // the most that adjtime(3) takes at once
	maxAhead = 50 * 365 * 24 * time.Hour
	// tolerance is what measuring itself costs.
	tolerance = 100 * time.Microsecond
)

// Keeper keeps the clock. Its methods may be called concurrently.
type Keeper struct {
	kernel kernel

	mu    sync.Mutex // guards the rest
	floor time.Time
	state State
}

// State is what the keeper has seen and done.
type State struct {
	Source string        // name of the host's clock; empty without one
	Offset time.Duration // of the host's clock ahead of ours, when last looked at
	Steps  int
	Raised bool // the clock was before the floor
}

// kernel is the clock of this guest.
type kernel interface {
	Now() time.Time
	Set(time.Time) error
	Slew(time.Duration) error
}

// Source is a clock of the host.
type Source interface {
	Name() string
	// Offset is how far the source is ahead of the guest's clock.
	Offset() (time.Duration, error)
}

// New returns a keeper of the guest's clock.
func New() *Keeper { return &Keeper{kernel: linux{}} }

// NotBefore raises the floor, and the clock if it is below. It never lowers
// either. The zero time says nothing.
func (k *Keeper) NotBefore(floor time.Time) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if floor.After(k.floor) {
		k.floor = floor
	}
	now := k.kernel.Now()
	if !now.Before(k.floor) {
		return nil
	}
	if err := k.kernel.Set(k.floor); err != nil {
		return fmt.Errorf("set the clock to its floor: %w", err)
	}
	k.state.Raised = true
	slog.Warn("the clock was behind its floor", "was", now, "floor", k.floor)
	return nil
}

// State returns a copy.
func (k *Keeper) State() State {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.state
}

// Follow keeps the clock near the source until ctx ends. A source that fails is
// asked again next time.
func (k *Keeper) Follow(ctx context.Context, s Source) error {
	k.mu.Lock()
	k.state.Source = s.Name()
	k.mu.Unlock()
	slog.InfoContext(ctx, "the clock follows the host's within bounds", "source", s.Name())
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for first := true; ; first = false {
		if err := k.correct(s, first); err != nil {
			slog.WarnContext(ctx, "the clock was not corrected", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// correct looks at the source once and acts on what it sees.
func (k *Keeper) correct(s Source, first bool) error {
	offset, err := s.Offset()
	if err != nil {
		return fmt.Errorf("read %s: %w", s.Name(), err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.state.Offset = offset
	switch {
	case offset.Abs() <= tolerance:
		return nil
	case offset <= stepFrom:
		return k.kernel.Slew(max(offset, -maxSlew))
	}
	step := offset
	if !first {
		step = min(step, maxStep)
	}
	now := k.kernel.Now()
	if ahead := now.Add(step).Sub(k.floor); !k.floor.IsZero() && ahead > maxAhead {
		return fmt.Errorf("the host's clock is more than %d years ahead of the floor: %w", int(maxAhead.Hours()/24/365), unix.ERANGE)
	}
	if err := k.kernel.Set(now.Add(step)); err != nil {
		return fmt.Errorf("step the clock: %w", err)
	}
	k.state.Steps++
	slog.Warn("the clock was stepped", "by", step, "behind", offset)
	return nil
}
