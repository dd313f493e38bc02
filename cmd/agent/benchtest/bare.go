package main

import (
	"context"
	"errors"
	"net"

	"github.com/containerd/ttrpc"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

// serveBare answers on a unix socket with the agent's own messages and does
// nothing for it: no gate, no policy, no log, and streams that come from memory
// and go nowhere. It is what ttRPC alone costs.
func serveBare(ctx context.Context, path string) error {
	s, err := ttrpc.NewServer()
	if err != nil {
		return err
	}
	s.RegisterService("grpc.Health", &ttrpc.ServiceDesc{Methods: map[string]ttrpc.Method{
		"Check": answer(func(*agentpb.CheckRequest) any {
			return &agentpb.HealthCheckResponse{Status: agentpb.HealthCheckResponse_SERVING}
		}),
	}})
	zeros := make([]byte, 1<<20)
	s.RegisterService("grpc.AgentService", &ttrpc.ServiceDesc{Methods: map[string]ttrpc.Method{
		"ReadStdout": answer(func(r *agentpb.ReadStreamRequest) any {
			return &agentpb.ReadStreamResponse{Data: zeros[:min(int(r.GetLen()), len(zeros))]}
		}),
		"WriteStdin": answer(func(r *agentpb.WriteStreamRequest) any {
			return &agentpb.WriteStreamResponse{Len: uint32(len(r.GetData()))}
		}),
	}})
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	if err := s.Serve(ctx, l); !errors.Is(err, ttrpc.ErrServerClosed) {
		return err
	}
	return nil
}

// answer makes a method of ttRPC out of a function.
func answer[M any](f func(*M) any) ttrpc.Method {
	return func(_ context.Context, unmarshal func(any) error) (any, error) {
		req := new(M)
		if err := unmarshal(req); err != nil {
			return nil, err
		}
		return f(req), nil
	}
}
