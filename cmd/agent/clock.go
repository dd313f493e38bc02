package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/agent/clock"
	"github.com/coffer-cc/coffer/agent/guest"
)

// built is when the source of this program was last changed, in seconds since
// the epoch, set by the linker. No guest runs before that.
var built = "0"

// keepClock gives a bare guest its time. Where another init has booted, that one
// has its own keeper of the clock.
func (p *process) keepClock() error {
	if !p.init {
		return nil
	}
	seconds, err := strconv.ParseInt(built, 10, 64)
	if err != nil {
		return fmt.Errorf("time of the build: %w", err)
	}
	if err := p.clock.NotBefore(time.Unix(seconds, 0)); err != nil {
		return err
	}
	return p.clock.NotBefore(p.config.ClockFloor)
}

// followHost keeps the clock near that of KVM, where there is one.
func (p *process) followHost() error {
	if !p.init {
		return nil
	}
	source, err := clock.OpenKVM("/")
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	p.loop(func(ctx context.Context) error {
		defer source.Close()
		return p.clock.Follow(ctx, source)
	})
	return nil
}

// clockMetrics say how far the guest's time can be believed.
func clockMetrics(e *guest.Exposition, s clock.State) {
	e.Gauge("coffer_clock_offset_seconds", "Host's clock ahead of the guest's when last looked at")
	if s.Source != "" {
		e.Sample(s.Offset.Seconds(), "source", s.Source)
	}
	e.Counter("coffer_clock_steps_total", "Times that the clock was stepped")
	e.Sample(float64(s.Steps))
	raised := 0.0
	if s.Raised {
		raised = 1
	}
	e.Gauge("coffer_clock_raised", "Whether the clock was behind its floor")
	e.Sample(raised)
}
