package rpc

import (
	"context"

	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/coffer-cc/coffer/agent/memagent"
	"github.com/coffer-cc/coffer/protos/agentpb"
)

// onlineCPUMem ends with the cpusets, so that containers may use what came.
func (s *Server) onlineCPUMem(ctx context.Context, r *agentpb.OnlineCPUMemRequest) (*emptypb.Empty, error) {
	if err := s.deps.Machine.OnlineCPUMem(ctx, r.GetNbCpus(), r.GetCpuOnly()); err != nil || r.GetNbCpus() == 0 {
		return empty, err
	}
	return empty, s.deps.Sandbox.RefreshCPUs(ctx)
}

func (s *Server) memHotplugByProbe(_ context.Context, r *agentpb.MemHotplugByProbeRequest) (*emptypb.Empty, error) {
	return empty, s.deps.Machine.ProbeMemory(r.GetMemHotplugProbeAddr())
}

func (s *Server) reseedRandomDev(_ context.Context, r *agentpb.ReseedRandomDevRequest) (*emptypb.Empty, error) {
	return empty, s.deps.Machine.Reseed(r.GetData())
}

func (s *Server) setGuestDateTime(ctx context.Context, r *agentpb.SetGuestDateTimeRequest) (*emptypb.Empty, error) {
	return empty, s.deps.Clock.Set(ctx, r.GetSec(), r.GetUsec())
}

func (s *Server) addSwap(ctx context.Context, r *agentpb.AddSwapRequest) (*emptypb.Empty, error) {
	return empty, s.deps.Swap.AddSlots(ctx, r.GetPCIPath())
}

func (s *Server) addSwapPath(ctx context.Context, r *agentpb.AddSwapPathRequest) (*emptypb.Empty, error) {
	return empty, s.deps.Swap.AddNode(ctx, r.GetPath())
}

func (s *Server) memAgentMemcgSet(ctx context.Context, r *agentpb.MemAgentMemcgConfig) (*emptypb.Empty, error) {
	if s.deps.Confidential && r.GetSwap() {
		return nil, notHere(swapOfHost)
	}
	return empty, s.deps.MemAgent.SetMemcg(ctx, memagent.MemcgChange{
		Disabled: r.Disabled, Swap: r.Swap, SwappinessMax: r.SwappinessMax, PeriodSecs: r.PeriodSecs,
		PeriodPSIPercent: r.PeriodPsiPercentLimit, EvictionPSIPercent: r.EvictionPsiPercentLimit,
		EvictionAgingMin: r.EvictionRunAgingCountMin,
	})
}

func (s *Server) memAgentCompactSet(ctx context.Context, r *agentpb.MemAgentCompactConfig) (*emptypb.Empty, error) {
	return empty, s.deps.MemAgent.SetCompact(ctx, memagent.CompactChange{
		Disabled: r.Disabled, PeriodSecs: r.PeriodSecs, PeriodPSIPercent: r.PeriodPsiPercentLimit,
		PSIPercent: r.CompactPsiPercentLimit, SecMax: r.CompactSecMax, Order: r.CompactOrder,
		Threshold: r.CompactThreshold, ForceTimes: r.CompactForceTimes,
	})
}
