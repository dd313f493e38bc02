package rpc

import (
	"context"

	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/coffer-cc/coffer/agent/guest"
	"github.com/coffer-cc/coffer/protos/agentpb"
)

func (s *Server) getVolumeStats(ctx context.Context, r *agentpb.VolumeStatsRequest) (*agentpb.VolumeStatsResponse, error) {
	stats, err := s.deps.Volumes.Stats(ctx, r.GetVolumeGuestPath())
	return &agentpb.VolumeStatsResponse{
		Usage: []*agentpb.VolumeUsage{
			volumeUsage(agentpb.VolumeUsage_BYTES, stats.Bytes),
			volumeUsage(agentpb.VolumeUsage_INODES, stats.Inodes),
		},
		// A volume that cannot be read is an error, so this one is well.
		VolumeCondition: &agentpb.VolumeCondition{Message: "OK"},
	}, err
}

func volumeUsage(unit agentpb.VolumeUsage_Unit, u guest.Usage) *agentpb.VolumeUsage {
	return &agentpb.VolumeUsage{Unit: unit, Total: u.Total, Used: u.Used, Available: u.Available}
}

func (s *Server) resizeVolume(ctx context.Context, r *agentpb.ResizeVolumeRequest) (*emptypb.Empty, error) {
	return empty, s.deps.Volumes.Resize(ctx, r.GetVolumeGuestPath(), r.GetSize())
}
