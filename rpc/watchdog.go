package rpc

import (
	"context"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"time"
)

const (
	watchTick = 5 * time.Second
	// graceTime is what a handler may need to notice that its caller is gone.
	graceTime = 15 * time.Second
	// briefTime is enough for every call that waits for nothing but the kernel.
	briefTime = time.Minute
	// Dumps stop the whole program and fill the guest's log.
	maxDumps      = 4
	maxDumped     = 48      // goroutines in one
	maxStack      = 3 << 10 // text of one of them; a line of the log holds 4 KiB
	maxDumpedText = 1 << 20 // of all of them, before it is cut
)

// patient calls wait for a workload, a host or a registry, and may do so for as
// long as their caller does.
func patient(name string) bool {
	switch name {
	case "WaitProcessRequest", "ReadStreamRequest", "WriteStreamRequest", "GetOOMEventRequest", "CreateContainerRequest":
		return true
	}
	return false
}

// watchdog finds calls that do not end, and shows in the guest's log where the
// program stands. The host gets none of that in its answer.
type watchdog struct {
	grace, brief time.Duration

	mu    sync.Mutex // guards the rest
	calls map[*watched]struct{}
	dumps int
}

// watched is a call in flight.
type watched struct {
	ctx      context.Context
	name     string
	start    time.Time
	ended    time.Time // when its context was first seen to be over
	reported bool
}

// begin notes a call; the function that it returns forgets it.
func (w *watchdog) begin(ctx context.Context, name string) (end func()) {
	c := &watched{ctx: ctx, name: name, start: time.Now()}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.calls == nil {
		w.calls = make(map[*watched]struct{})
	}
	w.calls[c] = struct{}{}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.calls, c)
	}
}

// Watch looks after the calls until ctx ends.
func (s *Server) Watch(ctx context.Context) error {
	tick := time.NewTicker(watchTick)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			s.gate.watch.look(now)
		case <-ctx.Done():
			return nil
		}
	}
}

// look reports each stuck call once, with one dump for all that are new.
func (w *watchdog) look(now time.Time) {
	stuck, dump := w.stuck(now)
	for _, c := range stuck {
		slog.WarnContext(c.ctx, "call is stuck", "request", c.name, "since", now.Sub(c.start), "caller-gone", !c.ended.IsZero())
	}
	if !dump {
		return
	}
	for _, stack := range stacks() {
		slog.WarnContext(stuck[0].ctx, "goroutine", "stack", stack)
	}
}

func (w *watchdog) stuck(now time.Time) (calls []*watched, dump bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.calls {
		if c.ended.IsZero() && c.ctx.Err() != nil {
			c.ended = now
		}
		late := !c.ended.IsZero() && now.Sub(c.ended) >= w.grace
		slow := !patient(c.name) && now.Sub(c.start) >= w.brief
		if !c.reported && (late || slow) {
			c.reported = true
			calls = append(calls, c)
		}
	}
	if len(calls) == 0 || w.dumps >= maxDumps {
		return calls, false
	}
	w.dumps++
	return calls, true
}

// stacks shows where the goroutines stand, those at work on a call first. The
// numbers in the arguments go: the log leaves the guest, and a word of a key
// may be among them.
func stacks() []string {
	buf := make([]byte, maxDumpedText)
	buf = buf[:runtime.Stack(buf, true)]
	var first, rest []string
	for stack := range strings.SplitSeq(string(buf), "\n\n") {
		text := withoutArguments(stack)
		if strings.Contains(text, "/rpc.(*gate).call") {
			first = append(first, text)
		} else {
			rest = append(rest, text)
		}
	}
	all := append(first, rest...)
	return all[:min(len(all), maxDumped)]
}

func withoutArguments(stack string) string {
	var out strings.Builder
	for line := range strings.Lines(stack) {
		if i := strings.Index(line, "(0x"); i >= 0 {
			line = line[:i] + "(…)\n"
		}
		if i := strings.Index(line, " +0x"); i >= 0 {
			line = line[:i] + "\n"
		}
		if out.Len()+len(line) > maxStack {
			break
		}
		out.WriteString(line)
	}
	return out.String()
}
