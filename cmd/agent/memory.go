package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// memoryLimit is where the collector of garbage begins to work hard. It is far
// above what the agent needs; a large pull must not take the workload's memory.
const memoryLimit = 192 << 20

// Little of the agent's memory is live, so streams of a hundred MB/s would have
// garbage collected a hundred times a second, which takes as long as carrying
// the bytes. While much is allocated the collector waits for more; afterwards
// the guest gets all of it back, which the runtime would do in minutes only.
const (
	usualGarbage = 100 // percent of what is live
	busyGarbage  = 400

	heedTime   = 2 * time.Second
	busyBytes  = 64 << 20 // allocated in heedTime at least
	quietBytes = 1 << 20  // allocated in heedTime at most
	worthBytes = 2 << 20  // allocated since memory was given back last
)

// heedMemory adapts to what is going on.
func heedMemory(ctx context.Context) error {
	tick := time.NewTicker(heedTime)
	defer tick.Stop()
	for h := (heed{}); ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		switch h.judge(allocated()) {
		case busy:
			debug.SetGCPercent(busyGarbage)
		case over:
			debug.SetGCPercent(usualGarbage)
			debug.FreeOSMemory()
		}
	}
}

// heed remembers what was allocated so far.
type heed struct{ before, given uint64 }

type verdict int

const (
	usual verdict = iota
	busy
	over // it was busy and is quiet now
)

func (h *heed) judge(now uint64) verdict {
	grown := now - h.before
	h.before = now
	switch {
	case grown > busyBytes:
		return busy
	case grown < quietBytes && now-h.given > worthBytes:
		h.given = now
		return over
	}
	return usual
}

// allocated counts the bytes that were ever allocated. Reading it stops nothing.
func allocated() uint64 {
	all := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(all)
	return all[0].Value.Uint64()
}
