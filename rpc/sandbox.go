package rpc

import (
	"context"
	"errors"

	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/coffer-cc/coffer/agent/sandbox"
	"github.com/coffer-cc/coffer/protos/agentpb"
)

func (s *Server) createSandbox(ctx context.Context, r *agentpb.CreateSandboxRequest) (*emptypb.Empty, error) {
	modules := make([]sandbox.KernelModule, 0, len(r.GetKernelModules()))
	for _, m := range r.GetKernelModules() {
		modules = append(modules, sandbox.KernelModule{Name: m.GetName(), Parameters: m.GetParameters()})
	}
	return empty, s.deps.Sandbox.Setup(ctx, sandbox.SetupRequest{
		ID: r.GetSandboxId(), Hostname: r.GetHostname(), DNS: r.GetDns(),
		Storages: storages(r.GetStorages()), GuestHookPath: r.GetGuestHookPath(), KernelModules: modules,
	})
}

// destroySandbox ends the agent once the reply is out.
func (s *Server) destroySandbox(ctx context.Context, _ *agentpb.DestroySandboxRequest) (*emptypb.Empty, error) {
	err := s.deps.Sandbox.Destroy(ctx)
	s.destroy.Do(s.deps.Destroyed)
	return empty, err
}

func (s *Server) setPolicy(ctx context.Context, r *agentpb.SetPolicyRequest) (*emptypb.Empty, error) {
	return empty, s.deps.Policy.Replace(ctx, r.GetPolicy())
}

// getOOMEvent waits for the next container that ran out of memory. When the
// server stops it never returns while its connection lives: the shim answers an
// error by asking again at once, for as long as the guest takes to go down.
func (s *Server) getOOMEvent(ctx context.Context, _ *agentpb.GetOOMEventRequest) (*agentpb.OOMEvent, error) {
	id, err := s.deps.Sandbox.NextOOM(ctx)
	if err != nil && errors.Is(s.ctx.Err(), context.Canceled) {
		<-s.closed
	}
	return &agentpb.OOMEvent{ContainerId: id}, err
}
