package rpc

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/coffer-cc/coffer/agent/sandbox"
	"github.com/coffer-cc/coffer/protos/agentpb"
	"github.com/coffer-cc/coffer/rpc/wire"
)

func (s *Server) createContainer(ctx context.Context, r *agentpb.CreateContainerRequest) (*emptypb.Empty, error) {
	spec, err := wire.Spec(r.GetOCI())
	if err != nil {
		return nil, err
	}
	return empty, s.withStreams(ctx, r, func() error {
		return s.deps.Sandbox.Create(ctx, sandbox.CreateRequest{
			ID: r.GetContainerId(), Spec: spec, SharePID: r.GetSandboxPidns(),
			Storages: storages(r.GetStorages()), Devices: deviceList(r.GetDevices()),
			Shared: sharedMounts(r.GetSharedMounts()),
		})
	})
}

func (s *Server) startContainer(ctx context.Context, r *agentpb.StartContainerRequest) (*emptypb.Empty, error) {
	c, err := s.deps.Sandbox.Container(r.GetContainerId())
	if err != nil {
		return nil, err
	}
	return empty, c.Start(ctx)
}

// removeContainer waits as long as the request says; the removal itself goes on
// when that is over.
func (s *Server) removeContainer(ctx context.Context, r *agentpb.RemoveContainerRequest) (*emptypb.Empty, error) {
	if t := r.GetTimeout(); t > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(t)*time.Second)
		defer cancel()
	}
	return empty, s.deps.Sandbox.Remove(ctx, r.GetContainerId())
}

func (s *Server) updateContainer(ctx context.Context, r *agentpb.UpdateContainerRequest) (*emptypb.Empty, error) {
	c, err := s.deps.Sandbox.Container(r.GetContainerId())
	if err != nil {
		return nil, err
	}
	limits, err := wire.Resources(r.GetResources())
	if err != nil {
		return nil, err
	}
	return empty, c.Update(ctx, limits)
}

func (s *Server) pauseContainer(ctx context.Context, r *agentpb.PauseContainerRequest) (*emptypb.Empty, error) {
	c, err := s.deps.Sandbox.Container(r.GetContainerId())
	if err != nil {
		return nil, err
	}
	return empty, c.Pause(ctx)
}

func (s *Server) resumeContainer(ctx context.Context, r *agentpb.ResumeContainerRequest) (*emptypb.Empty, error) {
	c, err := s.deps.Sandbox.Container(r.GetContainerId())
	if err != nil {
		return nil, err
	}
	return empty, c.Resume(ctx)
}

func (s *Server) statsContainer(ctx context.Context, r *agentpb.StatsContainerRequest) (*agentpb.StatsContainerResponse, error) {
	c, err := s.deps.Sandbox.Container(r.GetContainerId())
	if err != nil {
		return nil, err
	}
	st, err := c.Stats(ctx)
	if err != nil {
		return nil, err
	}
	return &agentpb.StatsContainerResponse{CgroupStats: cgroupStats(st)}, nil
}
