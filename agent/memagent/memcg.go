package memagent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/agent/config"
)

// memcgWork is what the rounds of aging remember.
type memcgWork struct {
	agent    *Agent
	lru      *lru
	pressure pressure
	aged     map[string]uint64 // by group: rounds of aging since the last eviction
}

// minGenerations is how many generations the kernel keeps from eviction.
const minGenerations = 2

// round ages every cgroup and evicts the oldest generation of those that were
// aged often enough, as long as the pressure stays low.
func (w *memcgWork) round(ctx context.Context, c config.MemAgent) error {
	quiet, err := w.quiet(c.Memcg.PeriodPSIPercent)
	if err != nil || !quiet {
		w.agent.count(func(n *Counters) { n.MemcgSkipped++ })
		return err
	}
	groups, err := w.lru.groups()
	if err != nil {
		return err
	}
	swap := c.Memcg.Swap && w.swapLeft()
	var errs []error
	for _, g := range groups {
		if err := w.lru.age(g, swap); err != nil {
			errs = append(errs, gone(err))
			continue
		}
		w.agent.count(func(n *Counters) { n.Aged++ })
	}
	if groups, err = w.lru.groups(); err != nil {
		return errors.Join(append(errs, err)...)
	}
	w.remember(groups)
	errs = append(errs, w.evict(ctx, c, groups, swap))
	w.agent.count(func(n *Counters) { n.MemcgRounds++ })
	return errors.Join(errs...)
}

func (w *memcgWork) quiet(limit uint8) (bool, error) {
	percent, err := w.pressure.percent()
	return percent <= uint64(limit), err
}

// remember counts one more aging of each group, and forgets those that ended.
func (w *memcgWork) remember(groups []group) {
	now := make(map[string]uint64, len(groups))
	for _, g := range groups {
		now[g.key()] = w.aged[g.key()] + 1
	}
	w.aged = now
}

func (g group) key() string { return fmt.Sprint(g.memcg, " ", g.node) }

func (w *memcgWork) evict(ctx context.Context, c config.MemAgent, groups []group, swap bool) error {
	var errs []error
	for _, g := range groups {
		if ctx.Err() != nil || w.aged[g.key()] < c.Memcg.EvictionAgingMin || g.oldest().seq+minGenerations > g.newest().seq {
			continue
		}
		quiet, err := w.quiet(c.Memcg.EvictionPSIPercent)
		if err != nil || !quiet {
			return errors.Join(append(errs, err)...)
		}
		pages, swappiness := g.cold(swap, c.Memcg.SwappinessMax)
		if pages == 0 {
			continue
		}
		if err := w.lru.evict(g, swappiness, pages); err != nil {
			errs = append(errs, gone(err))
			continue
		}
		w.aged[g.key()] = 0
		w.agent.count(func(n *Counters) { n.Evicted++ })
		slog.DebugContext(ctx, "cold pages reclaimed", "cgroup", g.path, "node", g.node, "pages", pages)
	}
	return errors.Join(errs...)
}

// cold is how many pages to reclaim, and how the kernel is to weigh anonymous
// ones: by their share, but no more than most of 200.
func (g group) cold(swap bool, most uint8) (pages, swappiness uint64) {
	old := g.oldest()
	if !swap || old.anon == 0 {
		return old.file, 0
	}
	return old.file + old.anon*uint64(most)/200, min(old.anon*200/(old.anon+old.file), uint64(most))
}

// swapLeft tells whether there is room for anonymous pages.
func (w *memcgWork) swapLeft() bool {
	b, err := os.ReadFile(filepath.Join(w.agent.paths.Proc, "meminfo"))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "SwapFree:" {
			return number(f[1]) > 0
		}
	}
	return false
}

// gone drops the error of a cgroup that ended, or has nothing to age, meanwhile.
func gone(err error) error {
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ERANGE) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
