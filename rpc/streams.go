package rpc

import (
	"context"
	"log/slog"

	"google.golang.org/protobuf/proto"

	"github.com/coffer-cc/coffer/protos/agentpb"
	"github.com/coffer-cc/coffer/rpc/passfd"
	"github.com/coffer-cc/coffer/rpc/wire"
)

// portsRequest is one of the two that make a process.
type portsRequest interface {
	GetContainerId() string
	GetExecId() string
	GetStdinPort() uint32
	GetStdoutPort() uint32
	GetStderrPort() uint32
}

// withStreams makes a process and joins it with the connections that the request
// names, where the guest has a port for such. Without one the numbers mean
// nothing, and the host reads and writes through the API.
func (s *Server) withStreams(ctx context.Context, r portsRequest, create func() error) error {
	if s.deps.Streams == nil || r.GetStdinPort()|r.GetStdoutPort()|r.GetStderrPort() == 0 {
		return create()
	}
	streams, err := s.deps.Streams.Take(ctx, r.GetStdinPort(), r.GetStdoutPort(), r.GetStderrPort())
	if err != nil {
		return err
	}
	if err := create(); err != nil {
		streams.Close()
		return err
	}
	p, err := s.deps.Sandbox.Process(r.GetContainerId(), r.GetExecId())
	if err != nil {
		streams.Close()
		return err
	}
	s.closeDenied(ctx, r, &streams)
	p.Attach(streams.Stdin, streams.Stdout, streams.Stderr)
	return nil
}

// closeDenied ends the streams that the policy would not let the host have by the
// API. The output of a closed one is dropped, so the workload does not block.
func (s *Server) closeDenied(ctx context.Context, r portsRequest, streams *passfd.Streams) {
	read := &agentpb.ReadStreamRequest{ContainerId: r.GetContainerId(), ExecId: r.GetExecId(), Len: maxRead}
	if !s.allowed(ctx, read) {
		passfd.Streams{Stdout: streams.Stdout, Stderr: streams.Stderr}.Close()
	}
	write := &agentpb.WriteStreamRequest{ContainerId: r.GetContainerId(), ExecId: r.GetExecId()}
	if streams.Stdin != nil && !s.allowed(ctx, write) {
		streams.Stdin.Close()
		streams.Stdin = nil
	}
}

func (s *Server) allowed(ctx context.Context, r proto.Message) bool {
	err := s.gate.decide(ctx, wire.Endpoint(r), r)
	if err != nil {
		slog.WarnContext(ctx, "stream closed", "error", err)
	}
	return err == nil
}
