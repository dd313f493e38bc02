package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/coffer-cc/coffer/protos/agentpb"
	"github.com/coffer-cc/coffer/rpc/socket"
	"github.com/coffer-cc/coffer/rpc/wire"
)

// fakeAgent keeps containers whose processes are small functions. It behaves:
// streams end, exit codes stay, an unknown container is an error, and what is
// denied is not done.
type fakeAgent struct {
	mu         sync.Mutex // guards all below
	calls      []string
	denied     map[string]bool // by endpoint
	sandboxes  int
	containers map[string]*fakeContainer
	metrics    string // in addition to the containers

	pulling chan struct{} // when set, CreateContainer waits for it or its context
}

type fakeContainer struct {
	req   *agentpb.CreateContainerRequest
	procs map[string]*fakeProc
}

// fakeProc is a process: "" is a container's init.
type fakeProc struct {
	args           []string
	tty            bool
	stdin          fakeStream
	stdout, stderr fakeStream
	signals        chan unix.Signal
	done           chan struct{}
	code           int
	rows           uint32
}

// serve starts the fake and returns its address.
func serve(t *testing.T) (*fakeAgent, string) {
	t.Helper()
	f := &fakeAgent{denied: map[string]bool{}, containers: map[string]*fakeContainer{}}
	addr := "unix://" + filepath.Join(t.TempDir(), "agent.sock")
	l, err := socket.Listen(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	srv, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	srv.RegisterService("grpc.Health", &ttrpc.ServiceDesc{Methods: map[string]ttrpc.Method{
		"Check": handle(f, func(context.Context, *agentpb.CheckRequest) (proto.Message, error) {
			return &agentpb.HealthCheckResponse{Status: agentpb.HealthCheckResponse_SERVING}, nil
		}),
		"Version": handle(f, func(context.Context, *agentpb.CheckRequest) (proto.Message, error) {
			return &agentpb.VersionCheckResponse{AgentVersion: "9.9.9"}, nil
		}),
	}})
	srv.RegisterService("grpc.AgentService", &ttrpc.ServiceDesc{Methods: f.methods()})
	go srv.Serve(context.Background(), l)
	t.Cleanup(func() { srv.Close() })
	return f, addr
}

// handle decodes, validates, notes and judges a call before f sees it.
func handle[Q any, P interface {
	*Q
	proto.Message
}](a *fakeAgent, f func(context.Context, P) (proto.Message, error)) ttrpc.Method {
	return func(ctx context.Context, unmarshal func(any) error) (any, error) {
		req := P(new(Q))
		if err := unmarshal(req); err != nil {
			return nil, err
		}
		if err := wire.Validate(req); err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
		ep := wire.Endpoint(req)
		a.mu.Lock()
		a.calls = append(a.calls, ep)
		denied := a.denied[ep]
		a.mu.Unlock()
		if denied {
			return nil, status.Errorf(codes.PermissionDenied, "%s is blocked by policy:\nno rule\x1b[2J", ep)
		}
		return f(ctx, req)
	}
}

func (f *fakeAgent) methods() map[string]ttrpc.Method {
	return map[string]ttrpc.Method{
		"CreateSandbox":   handle(f, f.createSandbox),
		"DestroySandbox":  handle(f, func(context.Context, *agentpb.DestroySandboxRequest) (proto.Message, error) { return empty() }),
		"GetGuestDetails": handle(f, f.details),
		"GetMetrics":      handle(f, f.getMetrics),
		"CreateContainer": handle(f, f.create),
		"StartContainer":  handle(f, f.start),
		"RemoveContainer": handle(f, f.remove),
		"ExecProcess":     handle(f, f.exec),
		"SignalProcess":   handle(f, f.signal),
		"WaitProcess":     handle(f, f.wait),
		"WriteStdin":      handle(f, f.write),
		"CloseStdin":      handle(f, f.closeStdin),
		"TtyWinResize":    handle(f, f.resize),
		"ReadStdout": handle(f, func(ctx context.Context, r *agentpb.ReadStreamRequest) (proto.Message, error) {
			return f.read(ctx, r, func(p *fakeProc) *fakeStream { return &p.stdout })
		}),
		"ReadStderr": handle(f, func(ctx context.Context, r *agentpb.ReadStreamRequest) (proto.Message, error) {
			return f.read(ctx, r, func(p *fakeProc) *fakeStream { return &p.stderr })
		}),
	}
}

func empty() (proto.Message, error) { return &emptypb.Empty{}, nil }

// called tells which endpoints were called, without repeats, Check left out.
func (f *fakeAgent) called() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, c := range f.calls {
		if !slices.Contains(out, c) && c != "CheckRequest" {
			out = append(out, c)
		}
	}
	return out
}

func (f *fakeAgent) createSandbox(context.Context, *agentpb.CreateSandboxRequest) (proto.Message, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sandboxes++; f.sandboxes > 1 {
		return nil, status.Error(codes.AlreadyExists, "sandbox exists")
	}
	return empty()
}

func (f *fakeAgent) details(context.Context, *agentpb.GuestDetailsRequest) (proto.Message, error) {
	return &agentpb.GuestDetailsResponse{MemBlockSizeBytes: 128 << 20, AgentDetails: &agentpb.AgentDetails{
		SupportsSeccomp: true, StorageHandlers: []string{"local", "image_guest_pull"},
	}}, nil
}

func (f *fakeAgent) getMetrics(context.Context, *agentpb.GetMetricsRequest) (proto.Message, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	text := "# TYPE coffer_containers gauge\n" + f.metrics
	for id, c := range f.containers {
		text += fmt.Sprintf("coffer_containers{id=%q,state=\"running\",image=%q,digest=\"sha256:1\",pid=\"7\"} 1\n",
			id, c.req.Storages[0].Source)
	}
	return &agentpb.Metrics{Metrics: text}, nil
}

func (f *fakeAgent) create(ctx context.Context, r *agentpb.CreateContainerRequest) (proto.Message, error) {
	if _, err := wire.Spec(r.OCI); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if f.pulling != nil {
		select {
		case <-f.pulling:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.containers[r.ContainerId] != nil {
		return nil, status.Error(codes.AlreadyExists, "container exists")
	}
	f.containers[r.ContainerId] = &fakeContainer{req: r, procs: map[string]*fakeProc{"": newProc(r.OCI.Process)}}
	return empty()
}

func newProc(p *agentpb.Process) *fakeProc {
	return &fakeProc{args: p.Args, tty: p.Terminal, signals: make(chan unix.Signal, 8), done: make(chan struct{})}
}

func (f *fakeAgent) start(_ context.Context, r *agentpb.StartContainerRequest) (proto.Message, error) {
	p, err := f.proc(r.ContainerId, "")
	if err != nil {
		return nil, err
	}
	go p.run()
	return empty()
}

func (f *fakeAgent) exec(_ context.Context, r *agentpb.ExecProcessRequest) (proto.Message, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.containers[r.ContainerId]
	if c == nil {
		return nil, status.Error(codes.InvalidArgument, "invalid container id")
	}
	p := newProc(r.Process)
	c.procs[r.ExecId] = p
	go p.run()
	return empty()
}

// proc finds a process with the protocol's codes.
func (f *fakeAgent) proc(cid, exec string) (*fakeProc, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.containers[cid]
	if c == nil {
		return nil, status.Error(codes.InvalidArgument, "invalid container id")
	}
	if exec == cid {
		exec = ""
	}
	if p := c.procs[exec]; p != nil {
		return p, nil
	}
	return nil, status.Error(codes.NotFound, "invalid exec id")
}

func (f *fakeAgent) remove(_ context.Context, r *agentpb.RemoveContainerRequest) (proto.Message, error) {
	p, err := f.proc(r.ContainerId, "")
	if err != nil {
		return nil, err
	}
	p.signals <- unix.SIGKILL
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.containers, r.ContainerId)
	return empty()
}

func (f *fakeAgent) signal(_ context.Context, r *agentpb.SignalProcessRequest) (proto.Message, error) {
	p, err := f.proc(r.ContainerId, r.ExecId)
	if err != nil {
		return nil, err
	}
	p.signals <- unix.Signal(r.Signal)
	return empty()
}

func (f *fakeAgent) wait(ctx context.Context, r *agentpb.WaitProcessRequest) (proto.Message, error) {
	p, err := f.proc(r.ContainerId, r.ExecId)
	if err != nil {
		return nil, err
	}
	select {
	case <-p.done:
		return &agentpb.WaitProcessResponse{Status: int32(p.code)}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (f *fakeAgent) write(_ context.Context, r *agentpb.WriteStreamRequest) (proto.Message, error) {
	p, err := f.proc(r.ContainerId, r.ExecId)
	if err != nil {
		return nil, err
	}
	p.stdin.write(r.Data)
	return &agentpb.WriteStreamResponse{Len: uint32(len(r.Data))}, nil
}

func (f *fakeAgent) closeStdin(_ context.Context, r *agentpb.CloseStdinRequest) (proto.Message, error) {
	p, err := f.proc(r.ContainerId, r.ExecId)
	if err != nil {
		return nil, err
	}
	p.stdin.close()
	return empty()
}

func (f *fakeAgent) resize(_ context.Context, r *agentpb.TtyWinResizeRequest) (proto.Message, error) {
	p, err := f.proc(r.ContainerId, r.ExecId)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	p.rows = r.Row
	return empty()
}

func (f *fakeAgent) read(ctx context.Context, r *agentpb.ReadStreamRequest, of func(*fakeProc) *fakeStream) (proto.Message, error) {
	p, err := f.proc(r.ContainerId, r.ExecId)
	if err != nil {
		return nil, err
	}
	data, err := of(p).read(ctx, int(r.Len))
	if err == io.EOF {
		return &agentpb.ReadStreamResponse{}, nil
	}
	return &agentpb.ReadStreamResponse{Data: data}, err
}

// run is the process's program, chosen by its first argument.
func (p *fakeProc) run() {
	defer close(p.done)
	defer p.stdout.close()
	defer p.stderr.close()
	if len(p.args) == 0 {
		p.stdout.write([]byte("the image's own program\n"))
		return
	}
	switch p.args[0] {
	case "echo":
		p.stdout.write([]byte(strings.Join(p.args[1:], " ") + "\n"))
	case "cat":
		for {
			data, err := p.stdin.read(context.Background(), 1<<20)
			if err != nil {
				return
			}
			p.stdout.write(data)
		}
	case "fail":
		p.stderr.write([]byte("going down\n"))
		p.code, _ = strconv.Atoi(p.args[1])
	case "sleep": // until a signal; SIGTERM is ignored by "sleep hard"
		p.stdout.write([]byte("asleep\n"))
		for sig := range p.signals {
			if len(p.args) == 1 || sig == unix.SIGKILL {
				p.code = 128 + int(sig)
				return
			}
		}
	}
}

// fakeStream is a pipe with no end to its buffer. A read that is cancelled
// takes nothing.
type fakeStream struct {
	mu      sync.Mutex // guards all below
	buf     []byte
	closed  bool
	changed chan struct{}
}

func (s *fakeStream) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

func (s *fakeStream) write(b []byte) { s.change(func() { s.buf = append(s.buf, b...) }) }
func (s *fakeStream) close()         { s.change(func() { s.closed = true }) }

func (s *fakeStream) read(ctx context.Context, limit int) ([]byte, error) {
	for {
		s.mu.Lock()
		if n := min(limit, len(s.buf)); n > 0 {
			out := slices.Clone(s.buf[:n])
			s.buf = s.buf[n:]
			s.mu.Unlock()
			return out, nil
		}
		if s.closed {
			s.mu.Unlock()
			return nil, io.EOF
		}
		if s.changed == nil {
			s.changed = make(chan struct{})
		}
		ch := s.changed
		s.mu.Unlock()
		select {
		case <-ch:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
