package memagent

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/containerd/errdefs"
)

// MemcgChange is a request to change settings of the first part. What is nil
// keeps its value.
type MemcgChange struct {
	Disabled, Swap     *bool
	SwappinessMax      *uint32
	PeriodSecs         *uint64
	PeriodPSIPercent   *uint32
	EvictionPSIPercent *uint32
	EvictionAgingMin   *uint64
}

// SetMemcg applies the change as a whole or not at all. Without the kernel's
// lru_gen it is ErrNotImplemented, and while the agent is off
// ErrFailedPrecondition.
func (a *Agent) SetMemcg(ctx context.Context, r MemcgChange) error {
	var e edit
	e.atMost("swappiness_max", r.SwappinessMax, 200)
	e.atMost("period_psi_percent_limit", r.PeriodPSIPercent, 100)
	e.atMost("eviction_psi_percent_limit", r.EvictionPSIPercent, 100)
	e.period(r.PeriodSecs)
	if e.err != nil {
		return e.err
	}
	if err := a.usable(offersLRU); err != nil {
		return err
	}
	a.mu.Lock()
	m := &a.config.Memcg
	set(&m.Disable, r.Disabled)
	set(&m.Swap, r.Swap)
	setByte(&m.SwappinessMax, r.SwappinessMax)
	set(&m.PeriodSecs, r.PeriodSecs)
	setByte(&m.PeriodPSIPercent, r.PeriodPSIPercent)
	setByte(&m.EvictionPSIPercent, r.EvictionPSIPercent)
	set(&m.EvictionAgingMin, r.EvictionAgingMin)
	now := *m
	a.mu.Unlock()
	slog.InfoContext(ctx, "the host changed the aging of memory", "settings", fmt.Sprintf("%+v", now))
	a.poke()
	return nil
}

// CompactChange is the same for the second part.
type CompactChange struct {
	Disabled         *bool
	PeriodSecs       *uint64
	PeriodPSIPercent *uint32
	PSIPercent       *uint32
	SecMax           *int64
	Order            *uint32
	Threshold        *uint64
	ForceTimes       *uint64
}

// maxOrder is the largest block of the kernel's allocator (MAX_PAGE_ORDER).
const maxOrder = 10

// SetCompact applies the change as a whole or not at all. Without the kernel's
// compact_memory it is ErrNotImplemented, and while the agent is off
// ErrFailedPrecondition.
func (a *Agent) SetCompact(ctx context.Context, r CompactChange) error {
	var e edit
	e.atMost("period_psi_percent_limit", r.PeriodPSIPercent, 100)
	e.atMost("compact_psi_percent_limit", r.PSIPercent, 100)
	e.atMost("compact_order", r.Order, maxOrder)
	e.period(r.PeriodSecs)
	if r.SecMax != nil && *r.SecMax < 0 {
		e.fail("compact_sec_max", "is negative")
	}
	if e.err != nil {
		return e.err
	}
	if err := a.usable(offersCompaction); err != nil {
		return err
	}
	a.mu.Lock()
	c := &a.config.Compact
	set(&c.Disable, r.Disabled)
	set(&c.PeriodSecs, r.PeriodSecs)
	setByte(&c.PeriodPSIPercent, r.PeriodPSIPercent)
	setByte(&c.PSIPercent, r.PSIPercent)
	set(&c.SecMax, r.SecMax)
	setByte(&c.Order, r.Order)
	set(&c.Threshold, r.Threshold)
	set(&c.ForceTimes, r.ForceTimes)
	now := *c
	a.mu.Unlock()
	slog.InfoContext(ctx, "the host changed the compaction of memory", "settings", fmt.Sprintf("%+v", now))
	a.poke()
	return nil
}

// edit collects what is wrong with a change; the first mistake counts.
type edit struct{ err error }

func (e *edit) fail(field, why string) {
	if e.err == nil {
		e.err = fmt.Errorf("%s: %s: %w", field, why, errdefs.ErrInvalidArgument)
	}
}

func (e *edit) atMost(field string, v *uint32, limit uint32) {
	if v != nil && *v > limit {
		e.fail(field, fmt.Sprintf("%d is more than %d", *v, limit))
	}
}

// period refuses 0, with which the agent would do nothing else.
func (e *edit) period(v *uint64) {
	if v != nil && *v == 0 {
		e.fail("period_secs", "is 0")
	}
}

func set[T any](to *T, v *T) {
	if v != nil {
		*to = *v
	}
}

// setByte takes a value that was checked.
func setByte(to *uint8, v *uint32) {
	if v != nil {
		*to = uint8(*v)
	}
}
