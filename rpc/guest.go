package rpc

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/coffer-cc/coffer/agent/guest"
	"github.com/coffer-cc/coffer/protos/agentpb"
)

// agentPolicy is the feature that tells the shim that SetPolicy works.
const agentPolicy, seccompFeature = "agent-policy", "seccomp"

func (s *Server) getGuestDetails(_ context.Context, r *agentpb.GuestDetailsRequest) (*agentpb.GuestDetailsResponse, error) {
	d := s.deps.Details
	features := []string{agentPolicy}
	if d.Seccomp {
		features = append(features, seccompFeature)
	}
	out := &agentpb.GuestDetailsResponse{AgentDetails: &agentpb.AgentDetails{
		Version: d.Version, InitDaemon: d.Init, StorageHandlers: d.StorageHandlers,
		SupportsSeccomp: d.Seccomp, ExtraFeatures: features,
	}}
	memory, err := s.deps.Machine.Memory()
	if err != nil {
		return nil, err
	}
	if r.GetMemBlockSize() {
		out.MemBlockSizeBytes = memory.BlockSize
	}
	if r.GetMemHotplugProbe() {
		out.SupportMemHotplugProbe = memory.Probe
	}
	return out, nil
}

func (s *Server) getMetrics(ctx context.Context, _ *agentpb.GetMetricsRequest) (*agentpb.Metrics, error) {
	return &agentpb.Metrics{Metrics: s.deps.Metrics.Page(ctx)}, nil
}

const terminationLog = "termination_log"

func (s *Server) getDiagnosticData(_ context.Context, r *agentpb.GetDiagnosticDataRequest) (*agentpb.GetDiagnosticDataResponse, error) {
	if r.GetLogType() != terminationLog {
		return nil, fmt.Errorf("log_type %.64q: only %s is known: %w", r.GetLogType(), terminationLog, errdefs.ErrInvalidArgument)
	}
	c, err := s.deps.Sandbox.Container(r.GetContainerId())
	if err != nil {
		return nil, err
	}
	text, err := guest.TerminationLog(c.Spec(), s.deps.Copier.Root)
	return &agentpb.GetDiagnosticDataResponse{Data: text}, err
}

func (s *Server) copyFile(ctx context.Context, r *agentpb.CopyFileRequest) (*emptypb.Empty, error) {
	return empty, s.deps.Copier.Copy(ctx, guest.CopyRequest{
		Path: r.GetPath(), Size: r.GetFileSize(), Offset: r.GetOffset(),
		Mode: r.GetFileMode(), DirMode: r.GetDirMode(), UID: r.GetUid(), GID: r.GetGid(), Data: r.GetData(),
	})
}

func (s *Server) updateEphemeralMounts(ctx context.Context, r *agentpb.UpdateEphemeralMountsRequest) (*emptypb.Empty, error) {
	return empty, s.deps.Sandbox.UpdateEphemeral(ctx, storages(r.GetStorages()))
}

func (s *Server) removeStaleVirtiofsShareMounts(ctx context.Context, _ *agentpb.RemoveStaleVirtiofsShareMountsRequest) (*emptypb.Empty, error) {
	guest.RefreshShares(ctx, s.deps.Copier.Root)
	return empty, nil
}
