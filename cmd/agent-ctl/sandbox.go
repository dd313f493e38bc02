package main

import (
	"context"

	"google.golang.org/grpc/codes"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

// ensureSandbox creates the sandbox unless there is one. The protocol has no
// question for that, so a container in the metrics counts as the answer yes.
// An agent refuses a second sandbox under another name; that one will do too.
func (r *containerRun) ensureSandbox(ctx context.Context) error {
	if r.noSandbox {
		return nil
	}
	ctx, cancel := r.c.limit(ctx)
	defer cancel()
	if cs, err := containers(ctx, r.c); err == nil && len(cs) > 0 {
		return nil
	}
	_, err := r.c.agent.CreateSandbox(ctx, &agentpb.CreateSandboxRequest{
		SandboxId: r.sandbox,
		Hostname:  r.hostname,
	})
	if c := code(err); c == codes.AlreadyExists || c == codes.FailedPrecondition {
		return nil
	}
	return failed("CreateSandbox", err)
}
