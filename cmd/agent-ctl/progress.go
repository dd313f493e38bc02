package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/coffer-cc/coffer/imagepull/encrypt"
)

// showPull tells on stderr how far pulls are until stop is called. On a
// terminal one line changes in place; elsewhere a line is printed per phase.
// It says nothing where policy keeps the metrics from us.
func (a *app) showPull(ctx context.Context, c *client) (stop func()) {
	const interval = 300 * time.Millisecond
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	p := pullProgress{app: a, live: terminal(a.err) >= 0, seen: map[string]bool{}}
	go func() {
		defer close(done)
		for t := time.NewTicker(interval); ; {
			select {
			case <-ctx.Done():
				t.Stop()
				return
			case <-t.C:
			}
			ss, err := samples(ctx, c, pullFamily)
			if err != nil {
				return
			}
			p.show(ss)
		}
	}()
	return func() {
		cancel()
		<-done
		p.end()
	}
}

// pullProgress remembers what has been shown.
type pullProgress struct {
	*app
	live bool
	last string
	seen map[string]bool
}

func (p *pullProgress) show(ss []sample) {
	var parts []string
	for _, s := range ss {
		phase := s.labels["phase"]
		if s.value == 0 {
			continue
		}
		parts = append(parts, phase+" "+size(s.value))
		key := s.labels["reference"] + " " + phase
		if !p.live && !p.seen[key] {
			p.seen[key] = true
			p.note("pull %s: %s", s.labels["reference"], phase)
		}
	}
	if line := printable(strings.Join(parts, ", ")); p.live && line != p.last {
		p.last = line
		fmt.Fprintf(p.err, "\r\033[Kpull: %s", line)
	}
}

func (p *pullProgress) end() {
	if p.last != "" {
		fmt.Fprintln(p.err)
	}
}

// steps shows on stderr what is done to an image: a line that changes in place on
// a terminal, elsewhere a line per step.
type steps struct {
	*app
	live, quiet bool
	step        string
	shown       time.Time
}

func (s *steps) show(p encrypt.Progress) {
	switch {
	case s.quiet:
	case !s.live && p.Step != s.step:
		s.note("%s", p.Step)
	case s.live && (p.Step != s.step || p.Done == p.Total || time.Since(s.shown) > 100*time.Millisecond):
		fmt.Fprintf(s.err, "\r\033[K%s: %s of %s", printable(p.Step), size(float64(p.Done)), size(float64(p.Total)))
		s.shown = time.Now()
	}
	s.step = p.Step
}

func (s *steps) end() {
	if s.live && !s.quiet && s.step != "" {
		fmt.Fprintln(s.err)
	}
}

// size renders bytes the way people read them.
func size(n float64) string {
	for _, unit := range []string{"B", "KiB", "MiB"} {
		if n < 1024 {
			return fmt.Sprintf("%.4g %s", n, unit)
		}
		n /= 1024
	}
	return fmt.Sprintf("%.4g GiB", n)
}
