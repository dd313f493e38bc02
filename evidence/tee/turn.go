package tee

import (
	"context"

	"github.com/coffer-cc/coffer/evidence"
)

// turn lets one caller at a time ask a device.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

// ask calls f when it is the caller's turn. The kernel asks the host on behalf
// of f and cannot be interrupted, so when ctx ends ask returns and leaves f
// behind, which keeps its turn until the host has answered.
func ask[T any](ctx context.Context, t turn, f func() (T, error)) (T, error) {
	type answer struct {
		v   T
		err error
	}
	var none T
	select {
	case t <- struct{}{}:
	case <-ctx.Done():
		return none, evidence.DriverTimeout.Expired(ctx)
	}
	done := make(chan answer, 1)
	go func() {
		defer func() { <-t }()
		v, err := f()
		done <- answer{v, err}
	}()
	select {
	case a := <-done:
		return a.v, a.err
	case <-ctx.Done():
		return none, evidence.DriverTimeout.Expired(ctx)
	}
}
