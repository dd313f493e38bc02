package main

import (
	"context"

	"google.golang.org/grpc/codes"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

// ensureSandbox creates the sandbox unless there is one. The protocol has no
// question for that, so a container in the metrics counts as the answer yes.
// Creating a sandbox twice is harmless, but may be refused.
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
	if code(err) == codes.AlreadyExists {
		return nil
	}
	return failed("CreateSandbox", err)
}
