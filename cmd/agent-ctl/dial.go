package main

import (
	"context"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"

	"github.com/coffer-cc/coffer/protos/agentpb"
	"github.com/coffer-cc/coffer/rpc/socket"
)

// client is a connection to an agent. Calls may be made at the same time.
type client struct {
	*ttrpc.Client
	agent   agentpb.AgentServiceService
	health  agentpb.HealthService
	timeout time.Duration
}

// dial connects to the agent of the command line. The caller closes.
func (a *app) dial(ctx context.Context) (*client, error) {
	if a.address == "" {
		return nil, usagef("no address: give --address or set COFFER_ADDRESS")
	}
	dctx, cancel := limit(ctx, a.timeout)
	defer cancel()
	conn, err := socket.Dial(dctx, a.address)
	if errdefs.IsInvalidArgument(err) {
		return nil, usageError{err}
	}
	if err != nil {
		return nil, unreachableError{err}
	}
	c := ttrpc.NewClient(conn, ttrpc.WithUnaryClientInterceptor(leadTime))
	return &client{
		Client:  c,
		agent:   agentpb.NewAgentServiceClient(c),
		health:  agentpb.NewHealthClient(c),
		timeout: a.timeout,
	}, nil
}

// slack is how much longer we wait than the agent does. The agent then ends a
// call that takes too long, and says so; were we to leave first, output that it
// had just read for us would be lost.
const slack = 500 * time.Millisecond

// leadTime tells the agent the earlier of the two deadlines.
func leadTime(ctx context.Context, req *ttrpc.Request, resp *ttrpc.Response, _ *ttrpc.UnaryClientInfo, call ttrpc.Invoker) error {
	if t := time.Duration(req.TimeoutNano); t > slack {
		req.TimeoutNano = int64(t - slack)
	}
	return call(ctx, req, resp)
}

// limit bounds one call. The deadline travels with the request.
func (c *client) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	return limit(ctx, c.timeout)
}

func limit(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if d == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, d+slack)
}

// withClient is the frame of every command that needs one connection.
func (a *app) withClient(ctx context.Context, f func(*client) error) error {
	c, err := a.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	return f(c)
}
