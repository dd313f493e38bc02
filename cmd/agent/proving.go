package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/coffer-cc/coffer/agent/guest"
	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/broker"
	"github.com/coffer-cc/coffer/evidence/resource"
	"github.com/coffer-cc/coffer/evidence/secret"
)

// phases sums up the time that each phase of attestation took.
type phases struct {
	mu    sync.Mutex // guards the maps
	count map[string]int
	took  map[string]time.Duration
}

func (p *phases) observe(phase string, d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.count == nil {
		p.count, p.took = make(map[string]int), make(map[string]time.Duration)
	}
	p.count[phase]++
	p.took[phase] += d
}

func (p *phases) metrics(e *guest.Exposition) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e.Counter("coffer_attestation_phases_total", "Attestations and keys fetched")
	for phase, n := range p.count {
		e.Sample(float64(n), "phase", phase)
	}
	e.Counter("coffer_attestation_seconds_total", "Time they took")
	for phase, d := range p.took {
		e.Sample(d.Seconds(), "phase", phase)
	}
}

// watched is a broker whose faults are counted and logged by their code.
type watched struct {
	broker.Broker
	faults *faults
}

// Resource implements broker.Broker.
func (w watched) Resource(ctx context.Context, u resource.URI) (secret.Bytes, error) {
	b, err := w.Broker.Resource(ctx, u)
	if code := evidence.CodeOf(err); code != "" {
		w.faults.count(code)
		slog.WarnContext(ctx, "attestation fault", "code", string(code), "leg", string(code.Leg()), "resource", u.String(), "error", err)
	}
	return b, err
}

// faults counts requests for resources that failed, by code.
type faults struct {
	mu     sync.Mutex // guards counts
	counts map[evidence.Code]int
}

func (f *faults) count(code evidence.Code) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.counts == nil {
		f.counts = make(map[evidence.Code]int)
	}
	f.counts[code]++
}

func (f *faults) metrics(e *guest.Exposition) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e.Counter("coffer_attestation_faults_total", "Requests for resources that failed, by code")
	for code, n := range f.counts {
		e.Sample(float64(n), "leg", string(code.Leg()), "code", string(code))
	}
}
