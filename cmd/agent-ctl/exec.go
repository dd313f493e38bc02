package main

import (
	"context"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/protos/agentpb"
	"github.com/coffer-cc/coffer/rpc/wire"
)

func (a *app) execCommand() *cobra.Command {
	var f processFlags
	cmd := &cobra.Command{
		Use:   "exec [flags] CONTAINER COMMAND [ARG...]",
		Short: "Run one more process in a container",
		Args:  cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.checkTerminal(f.stdin, f.tty); err != nil {
				return err
			}
			p, err := f.process(args[1:])
			if err != nil {
				return err
			}
			req := &agentpb.ExecProcessRequest{ContainerId: args[0], ExecId: newID(), Process: wire.ProcessMessage(p)}
			return a.withClient(cmd.Context(), func(c *client) error {
				s := session{app: a, c: c, container: args[0], exec: req.ExecId, stdin: f.stdin, tty: f.tty}
				return s.runExec(cmd.Context(), req)
			})
		},
	}
	// What follows the container belongs to its command, flags included.
	cmd.Flags().SetInterspersed(false)
	f.define(cmd.Flags())
	cmd.ValidArgsFunction = a.completeContainer
	return cmd
}

// runExec starts the process and attaches to it. When the attachment breaks, the
// process is killed, as nobody can reach it under its random name any more.
func (s *session) runExec(ctx context.Context, req *agentpb.ExecProcessRequest) error {
	cctx, cancel := s.c.limit(ctx)
	_, err := s.c.agent.ExecProcess(cctx, req)
	cancel()
	if err != nil {
		return failed("ExecProcess", err)
	}
	status, err := s.attach(ctx)
	if err != nil {
		s.signal(context.WithoutCancel(ctx), unix.SIGKILL)
		return err
	}
	if status != 0 {
		return workloadExit(status)
	}
	return nil
}

// completeContainer offers the containers of the agent, if it can be asked.
func (a *app) completeContainer(cmd *cobra.Command, args []string, _ string) (ids []string, _ cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	_ = a.withClient(cmd.Context(), func(c *client) error {
		ctx, cancel := c.limit(cmd.Context())
		defer cancel()
		list, err := containers(ctx, c)
		for _, l := range list {
			ids = append(ids, l.ID)
		}
		return err
	})
	return ids, cobra.ShellCompDirectiveNoFileComp
}
