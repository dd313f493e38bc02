package memagent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/agent/config"
)

// compactFile starts a compaction of all memory when it is written to, and the
// write ends with it.
const compactFile = "sys/vm/compact_memory"

func offersCompaction(p Paths) error {
	if _, err := os.Stat(filepath.Join(p.Proc, compactFile)); err != nil {
		return fmt.Errorf("this kernel does not compact memory: %w", err)
	}
	return nil
}

// compactWork is what the rounds of compaction remember.
type compactWork struct {
	agent    *Agent
	pressure pressure
	leftOut  uint64 // rounds since the last compaction
	movable  uint64 // small free pages after it
	free     uint64 // KiB of free memory after it
}

// round compacts when there are enough free blocks that are too small, when
// much memory was taken since, or when it was left out too often.
func (w *compactWork) round(ctx context.Context, c config.MemAgent) error {
	if err := offersCompaction(w.agent.paths); err != nil {
		return err
	}
	needed, err := w.needed(c.Compact)
	if err != nil || !needed {
		w.leftOut++
		w.agent.count(func(n *Counters) { n.CompactRounds++; n.CompactSkipped++ })
		return err
	}
	start := time.Now()
	err = w.run(ctx, c.Compact)
	w.leftOut = 0
	w.agent.count(func(n *Counters) { n.CompactRounds++; n.Compactions++ })
	slog.InfoContext(ctx, "memory compacted", "ms", time.Since(start).Milliseconds(), "error", err)
	movable, free, read := w.read(c.Compact.Order)
	w.movable, w.free = movable, free
	return errors.Join(err, read)
}

func (w *compactWork) needed(c config.Compact) (bool, error) {
	percent, err := w.pressure.percent()
	if err != nil || percent > uint64(c.PeriodPSIPercent) {
		return false, err
	}
	if c.ForceTimes < math.MaxInt64 && w.leftOut >= c.ForceTimes {
		return true, nil
	}
	movable, free, err := w.read(c.Order)
	if err != nil {
		return false, err
	}
	threshold := c.Threshold
	if threshold == 0 {
		threshold = 2 << c.Order
	}
	taken := w.free > free && w.free-free > threshold*uint64(os.Getpagesize()/1024)
	return taken || movable > w.movable+threshold, nil
}

// read counts the free movable pages in blocks below the order, and free
// memory.
func (w *compactWork) read(order uint8) (movable, free uint64, err error) {
	f, err := os.Open(filepath.Join(w.agent.paths.Proc, "pagetypeinfo"))
	if err != nil {
		return 0, 0, fmt.Errorf("count free pages: %w", err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		_, counts, ok := strings.Cut(lines.Text(), " Movable ")
		for i, n := range strings.Fields(counts) {
			if ok && i < int(order) {
				movable += number(n) << i
			}
		}
	}
	b, err := os.ReadFile(filepath.Join(w.agent.paths.Proc, "meminfo"))
	if err != nil {
		return 0, 0, fmt.Errorf("read free memory: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "MemFree:" {
			free = number(f[1])
		}
	}
	return movable, free, nil
}

// run compacts until it is done, takes too long, or the guest comes under
// pressure.
func (w *compactWork) run(ctx context.Context, c config.Compact) error {
	most := time.Duration(min(c.SecMax, int64(longest/time.Second))) * time.Second
	bounded, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- w.agent.compact(bounded) }()
	look := time.NewTicker(time.Second)
	defer look.Stop()
	seen := pressure{paths: w.agent.paths}
	for {
		select {
		case err := <-done:
			return err
		case <-ctx.Done(): // the agent ends and does not wait for the kernel
			return nil
		case <-look.C:
			if percent, err := seen.percent(); err != nil || percent > uint64(c.PSIPercent) {
				cancel()
			}
		}
	}
}

// compactAll compacts node by node, so that it can stop between two of them. A
// write that is under way cannot be interrupted without ending the process.
func (a *Agent) compactAll(ctx context.Context) error {
	nodes, err := filepath.Glob(filepath.Join(a.paths.Sys, "devices/system/node/node[0-9]*/compact"))
	if err != nil || len(nodes) == 0 {
		nodes = []string{filepath.Join(a.paths.Proc, compactFile)}
	}
	for _, file := range nodes {
		if ctx.Err() != nil {
			return nil // stopped on purpose
		}
		if err := writeOne(file); err != nil {
			return fmt.Errorf("compact memory: %w", err)
		}
	}
	return nil
}

func writeOne(file string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteString("1"); err != nil && !errors.Is(err, unix.EINTR) {
		return err
	}
	return nil
}
