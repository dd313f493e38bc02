package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	callRounds = 5
	callTime   = 400 * time.Millisecond
)

// calls measures Health.Check, over one connection as a shim has it.
func (b *bench) calls() error {
	agent, err := b.startAgent("")
	if err != nil {
		return err
	}
	defer agent.stop()
	bare, err := b.startBare()
	if err != nil {
		return err
	}
	defer bare.stop()
	for _, callers := range []int{1, 8, 64} {
		ours, theirs, err := b.latencies(callers, agent.check, bare.check)
		if err != nil {
			return err
		}
		of := func(p string) string { return fmt.Sprintf("Check, %d callers, %s", callers, p) }
		b.table.versus(of("p50"), "µs", ours.p50, "bare ttRPC server", theirs.p50, goal{ratioAtMost: 1.5})
		b.table.versus(of("p99"), "µs", ours.p99, "bare ttRPC server", theirs.p99, goal{})
	}
	return nil
}

// latency has the medians of the rounds, in microseconds.
type latency struct{ p50, p99 float64 }

// latencies measures two calls in turns.
func (b *bench) latencies(callers int, one, two func(context.Context) error) (latency, latency, error) {
	rivals := []func(context.Context) error{one, two}
	p50, p99 := make([][]float64, 2), make([][]float64, 2)
	for range callRounds {
		for i, call := range rivals {
			s, err := flood(b.ctx, callers, call)
			if err != nil {
				return latency{}, latency{}, err
			}
			p50[i], p99[i] = append(p50[i], us(s.at(0.5))), append(p99[i], us(s.at(0.99)))
		}
	}
	return latency{middle(p50[0]), middle(p99[0])}, latency{middle(p50[1]), middle(p99[1])}, nil
}

// flood calls from several goroutines, each one after the other.
func flood(ctx context.Context, callers int, call func(context.Context) error) (sample, error) {
	var (
		group sync.WaitGroup
		mu    sync.Mutex // guards all and failed
		all   sample
		fail  error
		end   = time.Now().Add(callTime)
	)
	for range callers {
		group.Go(func() {
			var own sample
			var err error
			for began := time.Now(); err == nil && began.Before(end); began = time.Now() {
				err = call(ctx)
				own = append(own, time.Since(began))
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, own...)
			if err != nil {
				fail = err
			}
		})
	}
	group.Wait()
	return all, fail
}
