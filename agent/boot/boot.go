// Package boot makes a bare guest usable: mounts, kernel modules, cgroups,
// loopback, host name, limits. It runs once, in the agent that PID 1 started,
// before anything else touches the guest.
package boot

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"
)

// Step is one thing to do. A failing step ends the boot unless it is Optional.
type Step struct {
	Name     string
	Do       func(context.Context) error
	Optional bool
}

// Run does the steps in order and logs one line with the time of each.
func Run(ctx context.Context, steps []Step) error {
	for _, s := range steps {
		start := time.Now()
		err := s.Do(ctx)
		took := time.Since(start)
		switch {
		case err == nil:
			slog.InfoContext(ctx, "boot step", "step", s.Name, "took", took)
		case s.Optional:
			slog.WarnContext(ctx, "boot step failed", "step", s.Name, "took", took, "error", err)
		default:
			return fmt.Errorf("boot: %s: %w", s.Name, err)
		}
	}
	return nil
}

// Options says what the steps depend on.
type Options struct {
	Root       string                      // every path is below it; "/" outside of tests
	CgroupV1   bool                        // even though the kernel has version 2
	Modules    *Modules                    // those of the image; nil loads none
	LoopbackUp func(context.Context) error // required
}

// Steps returns the whole boot. The order matters: mounts made before the root
// is moved would be left behind in the old one, and modules may bring the file
// systems of later steps.
func Steps(o Options) []Step {
	b := bootstrap{o}
	steps := []Step{
		{Name: "private mounts", Do: b.privateMounts},
		{Name: "root that can be pivoted", Do: b.movableRoot},
	}
	for _, m := range baseMounts() {
		steps = append(steps, Step{Name: "mount " + m.target, Do: b.mounts(m), Optional: m.optional})
	}
	if o.Modules != nil {
		steps = append(steps, Step{Name: "kernel modules", Do: o.Modules.LoadPresent})
	}
	return append(steps,
		Step{Name: "mount configfs", Do: b.configfs, Optional: true},
		Step{Name: "entropy", Do: b.entropy},
		Step{Name: "cgroups", Do: b.cgroups},
		Step{Name: "memory of the agent", Do: b.agentMemoryFloor},
		Step{Name: "terminals", Do: b.ptmx},
		Step{Name: "host name", Do: b.hostname},
		Step{Name: "loopback", Do: o.LoopbackUp},
		Step{Name: "habits", Do: habits},
		Step{Name: "protection", Do: protect},
	)
}

// ServiceSteps are the boot where another init system has booted the guest and
// runs the agent as its service: all that is left is the agent's own protection.
func ServiceSteps() []Step {
	return []Step{{Name: "protection", Do: protect}}
}

// bootstrap holds what the steps need.
type bootstrap struct {
	Options
}

func (b bootstrap) path(p string) string { return filepath.Join(b.Root, p) }
