// Package memagent gives memory that containers do not use back to the host.
// Now and then it ages the pages of each cgroup with the kernel's multi-
// generational LRU and reclaims the oldest, and makes free memory contiguous, so
// that a balloon with free page reporting can return it. Either part keeps still
// while the guest is under pressure.
//
//	every PeriodSecs ─▶ pressure? ─▶ memcg:   age all, evict the oldest generation
//	                              └▶ compact: enough small free blocks? compact
//
// Settings come from the configuration and may be changed by the host while the
// agent runs. What the kernel does not offer is ErrNotImplemented.
package memagent

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/agent/config"
)

// Paths are where the kernel shows itself.
type Paths struct {
	Proc string // "/proc"
	Sys  string // "/sys"
}

// DefaultPaths are those of this guest.
func DefaultPaths() Paths {
	return Paths{Proc: "/proc", Sys: "/sys"}
}

// Agent does the work. Its methods may be called concurrently.
type Agent struct {
	paths   Paths
	compact func(context.Context) error // one compaction of all memory

	changed chan struct{} // holds one: settings changed

	mu       sync.Mutex // guards what follows
	config   config.MemAgent
	counters Counters
}

// Counters say what was done so far.
type Counters struct {
	MemcgRounds, MemcgSkipped     uint64
	Aged, Evicted                 uint64 // cgroups, per node
	CompactRounds, CompactSkipped uint64
	Compactions                   uint64
}

// New returns an agent that does nothing until Run.
func New(c config.MemAgent, p Paths) *Agent {
	a := &Agent{paths: p, config: c, changed: make(chan struct{}, 1)}
	a.compact = a.compactAll
	return a
}

// Counters returns a copy.
func (a *Agent) Counters() Counters {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.counters
}

func (a *Agent) settings() config.MemAgent {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.config
}

func (a *Agent) count(f func(*Counters)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f(&a.counters)
}

// Run works until ctx ends. Where the agent is off it only waits. A round that
// fails is logged and tried again a period later.
func (a *Agent) Run(ctx context.Context) error {
	if !a.settings().Enable {
		<-ctx.Done()
		return nil
	}
	lru, err := openLRU(a.paths)
	if err != nil {
		slog.WarnContext(ctx, "pages of containers are not aged", "error", err)
	} else {
		defer lru.Close()
	}
	memcg := &memcgWork{agent: a, lru: lru, pressure: pressure{paths: a.paths}}
	compact := &compactWork{agent: a, pressure: pressure{paths: a.paths}}
	jobs := []*job{
		{run: memcg.round, every: func(c config.MemAgent) (uint64, bool) { return c.Memcg.PeriodSecs, lru != nil && !c.Memcg.Disable }},
		{run: compact.round, every: func(c config.MemAgent) (uint64, bool) { return c.Compact.PeriodSecs, !c.Compact.Disable }},
	}
	for {
		select {
		case <-time.After(untilNext(jobs, a.settings())):
		case <-a.changed:
		case <-ctx.Done():
			return nil
		}
		for _, j := range jobs {
			j.runIfDue(ctx, a.settings())
		}
	}
}

// job is one of the two kinds of rounds.
type job struct {
	run   func(context.Context, config.MemAgent) error
	every func(config.MemAgent) (seconds uint64, on bool)
	last  time.Time // of the end of the last round, or of being switched on
}

// longest keeps a period that is meant to be for ever within a Duration.
const longest = 30 * 24 * time.Hour

func (j *job) due(c config.MemAgent) (time.Time, bool) {
	seconds, on := j.every(c)
	if !on {
		j.last = time.Time{}
		return time.Time{}, false
	}
	if j.last.IsZero() {
		j.last = time.Now()
	}
	return j.last.Add(time.Duration(min(max(seconds, 1), uint64(longest/time.Second))) * time.Second), true
}

func (j *job) runIfDue(ctx context.Context, c config.MemAgent) {
	if at, on := j.due(c); !on || time.Now().Before(at) {
		return
	}
	if err := j.run(ctx, c); err != nil && ctx.Err() == nil {
		slog.WarnContext(ctx, "memory round failed", "error", err)
	}
	j.last = time.Now()
}

func untilNext(jobs []*job, c config.MemAgent) time.Duration {
	wait := longest
	for _, j := range jobs {
		if at, on := j.due(c); on {
			wait = min(wait, max(time.Until(at), 0))
		}
	}
	return wait
}

// usable is asked before settings are changed: a change without effect would
// look like a success.
func (a *Agent) usable(offered func(Paths) error) error {
	if !a.settings().Enable {
		return fmt.Errorf("mem-agent is disabled: %w", errdefs.ErrFailedPrecondition)
	}
	if err := offered(a.paths); err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrNotImplemented)
	}
	return nil
}

// poke makes Run look at the settings again.
func (a *Agent) poke() {
	select {
	case a.changed <- struct{}{}:
	default:
	}
}
