package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/coffer-cc/coffer/agent/container"
	"github.com/coffer-cc/coffer/protos/agentpb"
	"github.com/coffer-cc/coffer/rpc/wire"
)

func (s *Server) execProcess(ctx context.Context, r *agentpb.ExecProcessRequest) (*emptypb.Empty, error) {
	p, err := wire.Process(r.GetProcess())
	if err != nil {
		return nil, err
	}
	return empty, s.withStreams(ctx, r, func() error {
		return s.deps.Sandbox.Exec(ctx, r.GetContainerId(), r.GetExecId(), p)
	})
}

func (s *Server) signalProcess(ctx context.Context, r *agentpb.SignalProcessRequest) (*emptypb.Empty, error) {
	if r.GetSignal() > 64 {
		return nil, fmt.Errorf("signal %d: %w", r.GetSignal(), errdefs.ErrInvalidArgument)
	}
	c, err := s.deps.Sandbox.Container(r.GetContainerId())
	if err != nil {
		return nil, err
	}
	return empty, c.Signal(ctx, r.GetExecId(), unix.Signal(r.GetSignal()))
}

func (s *Server) waitProcess(ctx context.Context, r *agentpb.WaitProcessRequest) (*agentpb.WaitProcessResponse, error) {
	p, err := s.deps.Sandbox.Process(r.GetContainerId(), r.GetExecId())
	if err != nil {
		return nil, err
	}
	code, err := p.Wait(ctx)
	return &agentpb.WaitProcessResponse{Status: int32(code)}, err
}

// writeStdin writes all of the data. No data at all closes the stream, which is
// how the Rust shim says so.
func (s *Server) writeStdin(ctx context.Context, r *agentpb.WriteStreamRequest) (*agentpb.WriteStreamResponse, error) {
	p, err := s.deps.Sandbox.Process(r.GetContainerId(), r.GetExecId())
	if err != nil {
		return nil, err
	}
	if len(r.GetData()) == 0 {
		return &agentpb.WriteStreamResponse{}, p.CloseStdin()
	}
	n, err := p.WriteStdin(ctx, r.GetData())
	return &agentpb.WriteStreamResponse{Len: uint32(n)}, err
}

func (s *Server) readStdout(ctx context.Context, r *agentpb.ReadStreamRequest) (*agentpb.ReadStreamResponse, error) {
	return s.read(ctx, r, (*container.Process).ReadStdout)
}

func (s *Server) readStderr(ctx context.Context, r *agentpb.ReadStreamRequest) (*agentpb.ReadStreamResponse, error) {
	return s.read(ctx, r, (*container.Process).ReadStderr)
}

// maxRead is the most that one read returns, far above the 32 KiB that shims
// ask for and below the limit of a message.
const maxRead = 1 << 20

// read answers the end of the stream with no data, which shims take as final;
// it never answers so for another reason.
func (s *Server) read(ctx context.Context, r *agentpb.ReadStreamRequest, from func(*container.Process, context.Context, int) ([]byte, error)) (*agentpb.ReadStreamResponse, error) {
	if r.GetLen() == 0 {
		return nil, fmt.Errorf("len: a read of nothing would look like the end: %w", errdefs.ErrInvalidArgument)
	}
	p, err := s.deps.Sandbox.Process(r.GetContainerId(), r.GetExecId())
	if err != nil {
		return nil, err
	}
	data, err := from(p, ctx, int(min(r.GetLen(), maxRead)))
	if errors.Is(err, io.EOF) {
		return &agentpb.ReadStreamResponse{}, nil
	}
	return &agentpb.ReadStreamResponse{Data: data}, err
}

func (s *Server) closeStdin(_ context.Context, r *agentpb.CloseStdinRequest) (*emptypb.Empty, error) {
	p, err := s.deps.Sandbox.Process(r.GetContainerId(), r.GetExecId())
	if err != nil {
		return nil, err
	}
	return empty, p.CloseStdin()
}

func (s *Server) ttyWinResize(_ context.Context, r *agentpb.TtyWinResizeRequest) (*emptypb.Empty, error) {
	if r.GetRow() > math.MaxUint16 || r.GetColumn() > math.MaxUint16 {
		return nil, fmt.Errorf("row, column: %d × %d: %w", r.GetRow(), r.GetColumn(), errdefs.ErrInvalidArgument)
	}
	p, err := s.deps.Sandbox.Process(r.GetContainerId(), r.GetExecId())
	if err != nil {
		return nil, err
	}
	return empty, p.Resize(uint16(r.GetRow()), uint16(r.GetColumn()))
}
