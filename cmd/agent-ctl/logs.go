package main

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

func (a *app) logsCommand() *cobra.Command {
	var follow bool
	var exec string
	cmd := &cobra.Command{
		Use:   "logs [flags] CONTAINER",
		Short: "Read the output of a container that nobody else reads",
		Long: "Read the output of a container. The agent keeps none: output waits in the\n" +
			"process's pipes and belongs to the first reader that takes it. So this shows\n" +
			"what no shim, run or other logs has read, and takes it away from them.",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeContainer,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(cmd.Context(), func(c *client) error {
				s := session{app: a, c: c, container: args[0], exec: exec}
				a.note("reading the streams of %s; what others have read is not shown", args[0])
				if follow {
					return s.copyOutputs(cmd.Context())
				}
				return s.drain(cmd.Context())
			})
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the streams end")
	cmd.Flags().StringVar(&exec, "exec", "", "`ID` of a process other than the container's first")
	return cmd
}

// drain takes what is there already. A read that gets nothing for a moment is
// ended by the agent, which costs no output.
func (s *session) drain(ctx context.Context) error {
	var g errgroup.Group
	g.Go(func() error { return s.drainOne(ctx, "ReadStdout", s.c.agent.ReadStdout, s.out) })
	g.Go(func() error { return s.drainOne(ctx, "ReadStderr", s.c.agent.ReadStderr, s.err) })
	return g.Wait()
}

func (s *session) drainOne(ctx context.Context, name string, read readCall, w io.Writer) error {
	const idle = 300 * time.Millisecond
	patient := func(ctx context.Context, r *agentpb.ReadStreamRequest) (*agentpb.ReadStreamResponse, error) {
		ctx, cancel := limit(ctx, idle)
		defer cancel()
		resp, err := read(ctx, r)
		if errors.Is(err, context.DeadlineExceeded) || code(err) == codes.DeadlineExceeded {
			return &agentpb.ReadStreamResponse{}, nil
		}
		return resp, err
	}
	return s.copyOut(ctx, name, patient, w)
}
