package main

import (
	"context"
	"strconv"

	"github.com/coffer-cc/coffer/agent/guest"
	"github.com/coffer-cc/coffer/agent/memagent"
)

// ownMetrics adds what Coffer knows beyond Kata's families. agent-ctl reads
// containers and pulls from here, so that a policy on GetMetrics governs them.
func (p *process) ownMetrics(g *graph) func(context.Context, *guest.Exposition) {
	return func(_ context.Context, e *guest.Exposition) {
		e.Gauge("coffer_containers", "Containers of the pod")
		for _, c := range g.sandbox.List() {
			e.Sample(1, "id", c.ID, "name", c.Name, "state", string(c.State), "pid", strconv.Itoa(c.Pid),
				"image", c.Image.Reference, "digest", c.Image.Digest)
		}
		e.Gauge("coffer_calls_in_flight", "Calls being worked on")
		e.Sample(float64(g.server.InFlight()))
		e.Gauge("coffer_config_ignored_keys", "Keys of the host that only the image may set")
		e.Sample(float64(p.report.Ignored))
		if p.document != nil {
			e.Gauge("coffer_initdata_bound", "Whether the hardware vouches for the initdata")
			bound := 0.0
			if p.bound {
				bound = 1
			}
			e.Sample(bound)
		}
		e.Counter("coffer_log_lines_dropped", "Log lines lost because nobody took them")
		e.Sample(float64(p.sink.Dropped()))
		clockMetrics(e, p.clock.State())
		memoryMetrics(e, g.memory.Counters())
		g.guarded.metrics(e)
	}
}

// memoryMetrics tells what the mem-agent did.
func memoryMetrics(e *guest.Exposition, c memagent.Counters) {
	e.Counter("coffer_memagent_total", "What the mem-agent did")
	for _, n := range []struct {
		what  string
		count uint64
	}{
		{"memcg_rounds", c.MemcgRounds}, {"memcg_skipped", c.MemcgSkipped}, {"aged", c.Aged}, {"evicted", c.Evicted},
		{"compact_rounds", c.CompactRounds}, {"compact_skipped", c.CompactSkipped}, {"compactions", c.Compactions},
	} {
		e.Sample(float64(n.count), "what", n.what)
	}
}
