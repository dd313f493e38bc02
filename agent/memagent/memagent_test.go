package memagent

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/agent/config"
)

const (
	calm = "some avg10=0.00 avg60=0.00 avg300=0.00 total=1000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
	// twoGroups is what a kernel 6.12 shows, less most of its cgroups.
	twoGroups = `memcg     1 /
 node     0
          0      50000        100          0 
          1      40000          0       5000 
          2      30000          0          0 
          3       1000        300        -12 
memcg    57 /kubepods/pod1
 node     0
          7      90000         40         60 
          8      60000          0          0 
          9       1000          5          5 
`
	// pageTypes is /proc/pagetypeinfo, less the blocks' own table.
	pageTypes = `Page block order: 9
Pages per block:  512

Free pages count per migrate type at order       0      1      2      3      4      5      6      7      8      9     10 
Node    0, zone      DMA, type    Unmovable      0      0      0      0      0      0      0      0      1      0      0 
Node    0, zone      DMA, type      Movable      0      0      0      0      0      0      0      0      0      1      2 
Node    0, zone    DMA32, type      Movable    100     50     10      0      0      0      0      0      1      3      9 
`
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	os.Exit(m.Run())
}

// kernel is a tree with what a kernel shows about its memory.
func kernel(t *testing.T, without ...string) Paths {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{
		"sys/kernel/mm/lru_gen/enabled": "0x0007\n", "sys/kernel/debug/lru_gen": twoGroups,
		"proc/pressure/memory": calm, "proc/pressure/io": calm, "proc/sys/vm/compact_memory": "",
		"proc/pagetypeinfo": pageTypes, "proc/meminfo": "MemTotal: 500000 kB\nMemFree: 200000 kB\nSwapFree: 1024 kB\n",
	}
	for _, name := range without {
		delete(files, name)
	}
	for name, text := range files {
		write(t, filepath.Join(dir, name), text)
	}
	return Paths{Proc: filepath.Join(dir, "proc"), Sys: filepath.Join(dir, "sys")}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(text), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// defaults are those of the configuration, switched on.
func defaults() config.MemAgent {
	c := config.Default().MemAgent
	c.Enable = true
	return c
}

func TestParseGroups(t *testing.T) {
	got, err := parseGroups(strings.NewReader(twoGroups))
	if err != nil || len(got) != 2 {
		t.Fatalf("got %+v, %v", got, err)
	}
	if g := got[0]; g.memcg != 1 || g.path != "/" || len(g.gens) != 4 || g.oldest() != (generation{0, 100, 0}) || g.newest() != (generation{3, 300, 0}) {
		t.Errorf("first %+v", g)
	}
	if g := got[1]; g.memcg != 57 || g.path != "/kubepods/pod1" || g.oldest() != (generation{7, 40, 60}) || g.newest().seq != 9 {
		t.Errorf("second %+v", g)
	}
	if _, err := parseGroups(strings.NewReader("memcg 1 /\n what is this line about\n")); err == nil {
		t.Error("nonsense was read")
	}
}

// told is the command that stands at the head of the fake file.
func told(t *testing.T, p Paths) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(p.Sys, "kernel/debug/lru_gen"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestAgingAndEviction(t *testing.T) {
	p := kernel(t)
	l, err := openLRU(p)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	g := group{memcg: 57, node: 1, gens: []generation{{7, 40, 60}, {8, 0, 0}, {9, 5, 5}}}
	if err := l.age(g, true); err != nil || !strings.HasPrefix(told(t, p), "+ 57 1 9 1 1") {
		t.Errorf("told %.20q, %v", told(t, p), err)
	}
	if err := l.evict(g, 30, 70); err != nil || !strings.HasPrefix(told(t, p), "- 57 1 7 30 70") {
		t.Errorf("told %.20q, %v", told(t, p), err)
	}
	for name, tc := range map[string]struct {
		swap              bool
		most              uint8
		pages, swappiness uint64
	}{
		"file pages alone": {false, 50, 60, 0},
		"bounded":          {true, 50, 70, 50},
		"by share":         {true, 200, 100, 80},
	} {
		if pages, s := g.cold(tc.swap, tc.most); pages != tc.pages || s != tc.swappiness {
			t.Errorf("%s: %d pages with swappiness %d", name, pages, s)
		}
	}
}

func TestEvictionWaitsForAging(t *testing.T) {
	p := kernel(t)
	a := New(defaults(), p)
	l, err := openLRU(p)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w := &memcgWork{agent: a, lru: l, pressure: pressure{paths: p}}
	for round := uint64(1); round <= 3; round++ {
		write(t, filepath.Join(p.Sys, "kernel/debug/lru_gen"), twoGroups)
		groups, err := l.groups()
		if err != nil {
			t.Fatal(err)
		}
		w.remember(groups)
		if err := w.evict(t.Context(), a.settings(), groups, false); err != nil {
			t.Fatal(err)
		}
		// The root has no cold file pages, so one group is left.
		if got, want := a.Counters().Evicted, round/3; got != want {
			t.Errorf("after %d agings %d evictions, want %d", round, got, want)
		}
	}
}

func TestPressureStopsRounds(t *testing.T) {
	p := kernel(t)
	a := New(defaults(), p)
	w := &memcgWork{agent: a, pressure: pressure{paths: p}}
	synctest.Test(t, func(t *testing.T) {
		if quiet, err := w.quiet(1); err != nil || !quiet {
			t.Errorf("first look: %v, %v", quiet, err)
		}
		time.Sleep(time.Second)
		write(t, filepath.Join(p.Proc, "pressure/memory"), strings.Replace(calm, "total=1000", "total=31000", 1))
		if percent, err := w.pressure.percent(); err != nil || percent != 3 {
			t.Errorf("30 ms of a second are %d %%, %v", percent, err)
		}
		time.Sleep(time.Second)
		write(t, filepath.Join(p.Proc, "pressure/memory"), strings.Replace(calm, "total=1000", "total=91000", 1))
		if err := w.round(t.Context(), a.settings()); err != nil { // without a list to read
			t.Error(err)
		}
	})
	if c := a.Counters(); c.MemcgSkipped != 1 || c.MemcgRounds != 0 {
		t.Errorf("counters %+v", c)
	}
	os.Remove(filepath.Join(p.Proc, "pressure/memory"))
	if _, err := w.pressure.percent(); err == nil {
		t.Error("pressure without a file")
	}
}

func TestCompactionIsNeeded(t *testing.T) {
	p := kernel(t)
	const small = 100 + 2*50 + 4*10 + 256 // below order 9
	for name, tc := range map[string]struct {
		work   compactWork
		change func(*config.Compact)
		want   bool
	}{
		"too few small blocks":   {compactWork{free: 200000}, func(*config.Compact) {}, false},
		"enough small blocks":    {compactWork{free: 200000}, func(c *config.Compact) { c.Threshold = small - 1 }, true},
		"no more than last time": {compactWork{free: 200000, movable: small}, func(c *config.Compact) { c.Threshold = 1 }, false},
		"memory was taken":       {compactWork{free: 300000}, func(*config.Compact) {}, true},
		"left out often":         {compactWork{free: 200000, leftOut: 4}, func(c *config.Compact) { c.ForceTimes = 4 }, true},
		"not often enough":       {compactWork{free: 200000, leftOut: 3}, func(c *config.Compact) { c.ForceTimes = 4 }, false},
		"never forced":           {compactWork{free: 200000, leftOut: math.MaxUint64}, func(c *config.Compact) { c.ForceTimes = math.MaxUint64 }, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := defaults().Compact
			tc.change(&c)
			tc.work.agent = New(defaults(), p)
			tc.work.pressure.paths = p
			if got, err := tc.work.needed(c); got != tc.want || err != nil {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

func TestCompactionIsBounded(t *testing.T) {
	p := kernel(t)
	a := New(defaults(), p)
	a.compact = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	w := &compactWork{agent: a, pressure: pressure{paths: p}}
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		if err := w.run(t.Context(), config.Compact{SecMax: 7, PSIPercent: 5}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(start); took != 7*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestRounds(t *testing.T) {
	p := kernel(t)
	c := defaults()
	c.Memcg.Disable = true
	c.Compact.PeriodSecs, c.Compact.ForceTimes = 60, 0
	synctest.Test(t, func(t *testing.T) {
		a := New(c, p)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- a.Run(ctx) }()
		time.Sleep(61 * time.Second)
		synctest.Wait()
		if n := a.Counters(); n.CompactRounds != 1 || n.Compactions != 1 || n.MemcgRounds+n.MemcgSkipped != 0 {
			t.Errorf("after a period: %+v", n)
		}
		if b, _ := os.ReadFile(filepath.Join(p.Proc, compactFile)); string(b) != "1" {
			t.Errorf("compact_memory got %q", b)
		}
		off := true
		if err := a.SetCompact(ctx, CompactChange{Disabled: &off}); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := a.Counters(); n.CompactRounds != 1 {
			t.Errorf("after it was switched off: %+v", n)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func ptr[T any](v T) *T { return &v }

func TestChangesAreChecked(t *testing.T) {
	a := New(defaults(), kernel(t))
	before := a.settings()
	for name, err := range map[string]error{
		"swappiness_max":             a.SetMemcg(t.Context(), MemcgChange{Disabled: ptr(true), SwappinessMax: ptr[uint32](201)}),
		"period_psi_percent_limit":   a.SetMemcg(t.Context(), MemcgChange{PeriodPSIPercent: ptr[uint32](1 << 20)}),
		"eviction_psi_percent_limit": a.SetMemcg(t.Context(), MemcgChange{EvictionPSIPercent: ptr[uint32](101)}),
		"period_secs":                a.SetMemcg(t.Context(), MemcgChange{PeriodSecs: ptr[uint64](0)}),
		"compact_psi_percent_limit":  a.SetCompact(t.Context(), CompactChange{Disabled: ptr(true), PSIPercent: ptr[uint32](256)}),
		"compact_sec_max":            a.SetCompact(t.Context(), CompactChange{SecMax: ptr[int64](-1)}),
		"compact_order":              a.SetCompact(t.Context(), CompactChange{Order: ptr[uint32](11)}),
	} {
		if !errdefs.IsInvalidArgument(err) || !strings.HasPrefix(err.Error(), name+": ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if a.settings() != before {
		t.Errorf("settings changed to %+v", a.settings())
	}
	err := a.SetMemcg(t.Context(), MemcgChange{Swap: ptr(true), SwappinessMax: ptr[uint32](200), PeriodSecs: ptr(uint64(math.MaxUint64))})
	if err != nil {
		t.Fatal(err)
	}
	if m := a.settings().Memcg; !m.Swap || m.SwappinessMax != 200 || m.PeriodSecs != math.MaxUint64 || m.EvictionAgingMin != before.Memcg.EvictionAgingMin {
		t.Errorf("settings %+v", m)
	}
}

func TestUnusable(t *testing.T) {
	off := defaults()
	off.Enable = false
	for name, tc := range map[string]struct {
		agent          *Agent
		memcg, compact func(error) bool
	}{
		"off":           {New(off, kernel(t)), errdefs.IsFailedPrecondition, errdefs.IsFailedPrecondition},
		"no LRU":        {New(defaults(), kernel(t, "sys/kernel/mm/lru_gen/enabled")), errdefs.IsNotImplemented, nil},
		"no compaction": {New(defaults(), kernel(t, "proc/sys/vm/compact_memory")), nil, errdefs.IsNotImplemented},
	} {
		memcg, compact := tc.agent.SetMemcg(t.Context(), MemcgChange{}), tc.agent.SetCompact(t.Context(), CompactChange{})
		if tc.memcg == nil && memcg != nil || tc.memcg != nil && !tc.memcg(memcg) {
			t.Errorf("%s: memcg: %v", name, memcg)
		}
		if tc.compact == nil && compact != nil || tc.compact != nil && !tc.compact(compact) {
			t.Errorf("%s: compact: %v", name, compact)
		}
	}
	p := kernel(t)
	write(t, filepath.Join(p.Sys, "kernel/mm/lru_gen/enabled"), "0x0000\n")
	if err := New(defaults(), p).SetMemcg(t.Context(), MemcgChange{}); !errdefs.IsNotImplemented(err) || !strings.HasPrefix(err.Error(), "the multi-generational LRU is off") {
		t.Errorf("switched off: %v", err)
	}
}
