package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/ttrpc"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

func (a *app) stopCommand() *cobra.Command {
	var grace time.Duration
	var sandbox bool
	cmd := &cobra.Command{
		Use:   "stop [flags] [CONTAINER...]",
		Short: "End containers, or the whole sandbox and with it the guest",
		Long: "End containers: SIGTERM, then after the grace period SIGKILL to all of their\n" +
			"processes, then removal. With --sandbox the sandbox ends, all containers with\n" +
			"it, and a guest whose first process is the agent powers off.",
		ValidArgsFunction: a.completeContainer,
		RunE: func(cmd *cobra.Command, args []string) error {
			if sandbox != (len(args) == 0) {
				return usagef("name containers, or give --sandbox alone")
			}
			return a.withClient(cmd.Context(), func(c *client) error {
				if sandbox {
					return destroySandbox(cmd.Context(), c)
				}
				return a.stop(cmd.Context(), c, args, grace)
			})
		},
	}
	cmd.Flags().DurationVar(&grace, "grace", 10*time.Second, "time between SIGTERM and SIGKILL")
	cmd.Flags().BoolVar(&sandbox, "sandbox", false, "end the sandbox")
	return cmd
}

// destroySandbox counts a lost connection as success: the guest may be off
// before the reply is out.
func destroySandbox(ctx context.Context, c *client) error {
	ctx, cancel := c.limit(ctx)
	defer cancel()
	_, err := c.agent.DestroySandbox(ctx, &agentpb.DestroySandboxRequest{})
	if errors.Is(err, ttrpc.ErrClosed) {
		return nil
	}
	return failed("DestroySandbox", err)
}

// stopped is what stop prints about one container.
type stopped struct {
	ID     string `json:"id"`
	Status *int32 `json:"exit_status"` // null when it had never been started
	Killed bool   `json:"killed"`      // the grace period was not enough
}

// stop goes on with the others when one fails.
func (a *app) stop(ctx context.Context, c *client, ids []string, grace time.Duration) error {
	var failure error
	var list []stopped
	rows := [][]string{{"ID", "EXIT", "KILLED"}}
	for _, id := range ids {
		st, err := stopOne(ctx, c, id, grace)
		if err != nil {
			failure = also(failure, fmt.Errorf("%s: %w", id, err))
			continue
		}
		exit := "-"
		if st.Status != nil {
			exit = fmt.Sprint(*st.Status)
		}
		list = append(list, st)
		rows = append(rows, []string{id, exit, fmt.Sprint(st.Killed)})
	}
	if len(list) > 0 {
		failure = also(failure, a.print(list, rows))
	}
	return failure
}

// also joins two failures on one line.
func also(a, b error) error {
	if a == nil || b == nil {
		return cmp.Or(a, b)
	}
	return fmt.Errorf("%w; %w", a, b)
}

func stopOne(ctx context.Context, c *client, id string, grace time.Duration) (stopped, error) {
	st := stopped{ID: id}
	if err := kill(ctx, c, id, unix.SIGTERM); err != nil {
		return st, err
	}
	var err error
	if st.Status, err = waitFor(ctx, c, id, grace); errors.Is(err, context.DeadlineExceeded) {
		st.Killed = true
		if err = kill(ctx, c, id, unix.SIGKILL); err == nil {
			st.Status, err = waitFor(ctx, c, id, c.timeout)
		}
	}
	if err != nil {
		return st, err
	}
	cctx, cancel := c.limit(ctx)
	defer cancel()
	_, err = c.agent.RemoveContainer(cctx, &agentpb.RemoveContainerRequest{ContainerId: id})
	return st, failed("RemoveContainer", err)
}

// kill addresses the container's init; SIGKILL reaches every process. A
// container without one is as good as killed.
func kill(ctx context.Context, c *client, id string, sig unix.Signal) error {
	ctx, cancel := c.limit(ctx)
	defer cancel()
	_, err := c.agent.SignalProcess(ctx, &agentpb.SignalProcessRequest{ContainerId: id, Signal: uint32(sig)})
	if code(err) == codes.NotFound {
		return nil
	}
	return failed("SignalProcess", err)
}

// waitFor returns nil without error for a container whose init nobody can wait
// for any more.
func waitFor(ctx context.Context, c *client, id string, d time.Duration) (*int32, error) {
	ctx, cancel := limit(ctx, d)
	defer cancel()
	r, err := c.agent.WaitProcess(ctx, &agentpb.WaitProcessRequest{ContainerId: id})
	switch code(err) {
	case codes.NotFound:
		return nil, nil
	case codes.DeadlineExceeded:
		return nil, context.DeadlineExceeded
	}
	if err != nil {
		return nil, failed("WaitProcess", err)
	}
	return &r.Status, nil
}
