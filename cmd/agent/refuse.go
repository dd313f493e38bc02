package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/rpc"
	"github.com/coffer-cc/coffer/rpc/socket"
)

// refusalTime is how long a guest that must not start tells its host why. A
// shim asks every few hundred milliseconds from the start on.
const refusalTime = 5 * time.Second

// refuse answers every call of the host with the reason, so that the event of
// the pod names it and not a time-out, and returns the reason. Nothing but
// this server is made, so there is nothing that a call could reach.
func (p *process) refuse(ctx context.Context, reason error) error {
	s, err := rpc.NewRefusing(reason)
	if err != nil {
		return errors.Join(reason, err)
	}
	l, err := socket.Listen(ctx, p.config.Server.Addr, p.peers()...)
	if err != nil {
		return errors.Join(reason, fmt.Errorf("listen on %s: %w", p.config.Server.Addr, err))
	}
	// Who waits for this line may ask from here on.
	slog.ErrorContext(ctx, "the guest refuses to start", "code", string(evidence.CodeOf(reason)), "error", reason)
	p.group.Go(func() error { return s.Serve(l) })
	select {
	case <-time.After(refusalTime):
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	return errors.Join(reason, s.Stop(end))
}
