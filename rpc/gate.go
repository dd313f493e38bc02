package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/coffer-cc/coffer/agent/logging"
	"github.com/coffer-cc/coffer/agent/policy"
	"github.com/coffer-cc/coffer/protos/agentpb"
	"github.com/coffer-cc/coffer/rpc/wire"
)

const (
	// maxCalls bounds the calls in flight. Three of each process are long
	// polls, so it is generous; beyond it the host only hurts itself.
	maxCalls = 8192
	// maxReply stays below the limit of a ttRPC message with room for the
	// envelope: the library closes the whole connection over a longer one.
	maxReply = 4<<20 - 4096
)

// gate is what every call passes:
//
//	open? ▸ count ▸ decode ▸ shape ▸ ids into ctx ▸ policy ▸ handler ▸ size ▸ status
//
// ttRPC has no recover of its own, and a panic would end the agent and with it
// the guest, so the gate has one.
type gate struct {
	policy policy.Engine
	watch  watchdog

	ids     atomic.Uint64
	mu      sync.Mutex // guards the following
	calls   int
	polls   int           // of calls, those that nothing waits for at the end
	opened  bool          // what the guest was booted with has been checked
	reason  error         // why it is not open, where that is known
	closing bool          // no more calls are let in
	idle    chan struct{} // closed when closing and calls has come down to polls
}

// kind says how the gate treats a method.
type kind int

const (
	ruled  kind = iota // the policy decides before the handler runs
	read               // the policy decides afterwards, and a denial empties the reply
	poll               // like ruled, and the end of the server does not wait for it
	public             // no policy: health checks
)

// request is a pointer to a generated message.
type request[M any] interface {
	*M
	proto.Message
}

// method makes a ttRPC method out of a handler.
func method[M any, R request[M], A proto.Message](g *gate, k kind, h func(context.Context, R) (A, error)) ttrpc.Method {
	return func(ctx context.Context, unmarshal func(any) error) (any, error) {
		req := R(new(M))
		if err := unmarshal(req); err != nil {
			return nil, status.Error(codes.InvalidArgument, "request cannot be decoded")
		}
		return g.call(ctx, k, req, func(ctx context.Context) (proto.Message, error) { return h(ctx, req) })
	}
}

// call leads one decoded request through the gate.
func (g *gate) call(ctx context.Context, k kind, req proto.Message, handler func(context.Context) (proto.Message, error)) (reply proto.Message, err error) {
	if err := g.enter(k); err != nil {
		return nil, Status(err)
	}
	defer g.leave(k)
	ctx = logging.WithRequest(ctx, strconv.FormatUint(g.ids.Add(1), 10))
	if c, ok := req.(interface{ GetContainerId() string }); ok && c.GetContainerId() != "" {
		ctx = logging.WithContainer(ctx, c.GetContainerId())
	}
	start := time.Now()
	name := wire.Endpoint(req)
	defer g.watch.begin(ctx, name)()
	defer func() {
		if p := recover(); p != nil {
			slog.ErrorContext(ctx, "request panicked", "request", name, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			reply, err = nil, status.Error(codes.Internal, name+": internal error")
		}
		g.log(ctx, name, k, start, err)
	}()
	if err := wire.Validate(req); err != nil {
		return nil, Status(err)
	}
	if k == ruled || k == poll {
		if err := g.decide(ctx, name, req); err != nil {
			return nil, Status(err)
		}
	}
	reply, err = handler(ctx)
	if err != nil {
		return nil, Status(err)
	}
	if k == read && g.decide(ctx, name, req) != nil {
		// The stream has been drained, so the workload does not block; the
		// host gets the end of the stream instead of what it may not see.
		return &agentpb.ReadStreamResponse{}, nil
	}
	if n := proto.Size(reply); n > maxReply {
		return nil, status.Errorf(codes.ResourceExhausted, "%s: reply of %d bytes is too long", name, n)
	}
	return reply, nil
}

// decide asks the policy.
func (g *gate) decide(ctx context.Context, name string, req proto.Message) error {
	d, err := g.policy.Allow(ctx, name, func() ([]byte, error) { return wire.PolicyInput(req) })
	if err != nil {
		return err
	}
	if !d.Allowed {
		return fmt.Errorf("%s: %w", d.Denial(name), errdefs.ErrPermissionDenied)
	}
	return nil
}

// log writes the one line of a call. Streams and checks would drown the rest.
func (g *gate) log(ctx context.Context, name string, k kind, start time.Time, err error) {
	level := slog.LevelInfo
	if err == nil && (k == read || k == public || name == "WriteStreamRequest" || name == "StatsContainerRequest") {
		level = slog.LevelDebug
	}
	if err != nil && !errors.Is(ctx.Err(), context.Canceled) {
		level = slog.LevelWarn
	}
	ms := float64(time.Since(start).Microseconds()) / 1000
	if err != nil {
		slog.Log(ctx, level, "request", "request", name, "ms", ms, "error", err)
		return
	}
	slog.Log(ctx, level, "request", "request", name, "ms", ms)
}

// enter counts a call in, or refuses it.
func (g *gate) enter(k kind) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.opened {
		return g.closedLocked()
	}
	if g.closing {
		return fmt.Errorf("agent is shutting down: %w", errdefs.ErrUnavailable)
	}
	if g.calls >= maxCalls {
		return fmt.Errorf("%d calls are in flight: %w", g.calls, errdefs.ErrResourceExhausted)
	}
	g.calls++
	if k == poll {
		g.polls++
	}
	return nil
}

func (g *gate) leave(k kind) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.calls--
	if k == poll {
		g.polls--
	}
	g.quietLocked()
}

// closedLocked is what every call hears before open.
func (g *gate) closedLocked() error {
	if g.reason != nil {
		return fmt.Errorf("the guest refuses to start: %s: %w", g.reason.Error(), errdefs.ErrFailedPrecondition)
	}
	return fmt.Errorf("the guest has not been checked yet: %w", errdefs.ErrFailedPrecondition)
}

// open lets calls in. A gate is closed until then, and never closes again.
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.opened = true
}

// quietLocked tells whoever waits in drain.
func (g *gate) quietLocked() {
	if g.closing && g.idle != nil && g.calls == g.polls {
		close(g.idle)
		g.idle = nil
	}
}

// shut lets no further calls in. It may be called again.
func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closing = true
}

// drain waits until no call but polls is in flight.
func (g *gate) drain(ctx context.Context) error {
	g.mu.Lock()
	idle := make(chan struct{})
	g.idle = idle
	g.quietLocked()
	g.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for calls in flight: %w", ctx.Err())
	}
}

// inFlight is the number of calls being worked on.
func (g *gate) inFlight() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.calls
}
