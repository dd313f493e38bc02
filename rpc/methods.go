package rpc

import (
	"context"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

var empty = &emptypb.Empty{}

// agentMethods is the whole service.
func (s *Server) agentMethods() map[string]ttrpc.Method {
	g := s.gate
	return map[string]ttrpc.Method{
		"CreateSandbox":  method(g, ruled, s.createSandbox),
		"DestroySandbox": method(g, ruled, s.destroySandbox),
		"SetPolicy":      method(g, ruled, s.setPolicy),
		"GetOOMEvent":    method(g, poll, s.getOOMEvent),

		"CreateContainer": method(g, ruled, s.createContainer),
		"StartContainer":  method(g, ruled, s.startContainer),
		"RemoveContainer": method(g, ruled, s.removeContainer),
		"UpdateContainer": method(g, ruled, s.updateContainer),
		"PauseContainer":  method(g, ruled, s.pauseContainer),
		"ResumeContainer": method(g, ruled, s.resumeContainer),
		"StatsContainer":  method(g, ruled, s.statsContainer),

		"ExecProcess":   method(g, ruled, s.execProcess),
		"SignalProcess": method(g, ruled, s.signalProcess),
		"WaitProcess":   method(g, ruled, s.waitProcess),
		"WriteStdin":    method(g, ruled, s.writeStdin),
		"ReadStdout":    method(g, read, s.readStdout),
		"ReadStderr":    method(g, read, s.readStderr),
		"CloseStdin":    method(g, ruled, s.closeStdin),
		"TtyWinResize":  method(g, ruled, s.ttyWinResize),

		"UpdateInterface": method(g, ruled, s.updateInterface),
		"UpdateRoutes":    method(g, ruled, s.updateRoutes),
		"ListInterfaces":  method(g, ruled, s.listInterfaces),
		"ListRoutes":      method(g, ruled, s.listRoutes),
		"AddARPNeighbors": method(g, ruled, s.addARPNeighbors),
		"GetIPTables":     method(g, ruled, s.getIPTables),
		"SetIPTables":     method(g, ruled, plainOnly(s, rulesOfHost, s.setIPTables)),

		"CopyFile":                       method(g, ruled, s.copyFile),
		"UpdateEphemeralMounts":          method(g, ruled, s.updateEphemeralMounts),
		"RemoveStaleVirtiofsShareMounts": method(g, ruled, s.removeStaleVirtiofsShareMounts),

		"GetGuestDetails":   method(g, ruled, s.getGuestDetails),
		"GetMetrics":        method(g, ruled, s.getMetrics),
		"GetDiagnosticData": method(g, ruled, s.getDiagnosticData),

		"OnlineCPUMem":       method(g, ruled, s.onlineCPUMem),
		"MemHotplugByProbe":  method(g, ruled, s.memHotplugByProbe),
		"ReseedRandomDev":    method(g, ruled, s.reseedRandomDev),
		"SetGuestDateTime":   method(g, ruled, plainOnly(s, clockOfHost, s.setGuestDateTime)),
		"AddSwap":            method(g, ruled, plainOnly(s, swapOfHost, s.addSwap)),
		"AddSwapPath":        method(g, ruled, plainOnly(s, swapOfHost, s.addSwapPath)),
		"MemAgentMemcgSet":   method(g, ruled, s.memAgentMemcgSet),
		"MemAgentCompactSet": method(g, ruled, s.memAgentCompactSet),

		"GetVolumeStats": method(g, ruled, s.getVolumeStats),
		"ResizeVolume":   method(g, ruled, s.resizeVolume),
	}
}

// healthMethods are open to everybody: a shim checks before it sets a policy.
func (s *Server) healthMethods() map[string]ttrpc.Method {
	return map[string]ttrpc.Method{
		"Check":   method(s.gate, public, s.check),
		"Version": method(s.gate, public, s.version),
	}
}

func (s *Server) check(context.Context, *agentpb.CheckRequest) (*agentpb.HealthCheckResponse, error) {
	return &agentpb.HealthCheckResponse{Status: agentpb.HealthCheckResponse_SERVING}, nil
}

// grpcVersion is the constant of the reference agent; shims show it.
const grpcVersion = "0.0.1"

func (s *Server) version(context.Context, *agentpb.CheckRequest) (*agentpb.VersionCheckResponse, error) {
	return &agentpb.VersionCheckResponse{GrpcVersion: grpcVersion, AgentVersion: s.deps.Details.Version}, nil
}
