// Package rpc is what the host talks to: the AgentService and Health of Kata's
// agent protocol over ttRPC. Methods translate, call one thing and return; what
// concerns all of them happens in the gate, and errors get their codes in
// errors.go. Everything that arrives here was written by an adversary.
//
// github.com/containerd/ttrpc is the library that the shims' side is built on.
package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/containerd/ttrpc"

	"github.com/coffer-cc/coffer/agent/clock"
	"github.com/coffer-cc/coffer/agent/guest"
	"github.com/coffer-cc/coffer/agent/memagent"
	"github.com/coffer-cc/coffer/agent/network"
	"github.com/coffer-cc/coffer/agent/policy"
	"github.com/coffer-cc/coffer/agent/sandbox"
	"github.com/coffer-cc/coffer/rpc/passfd"
)

// Deps are the parts that the methods call. All are required but Streams and Intercept.
type Deps struct {
	Policy    policy.Engine
	Sandbox   *sandbox.Sandbox
	Network   *network.Stack
	IPTables  network.IPTables
	Machine   guest.Machine
	Swap      guest.Swap
	MemAgent  *memagent.Agent
	Clock     *clock.Keeper
	Volumes   guest.Volumes
	Metrics   *guest.Metrics
	Copier    *guest.Copier
	Details   Details
	Destroyed func()       // called once when the host has destroyed the sandbox
	Streams   *passfd.Port // connections for streams of processes; nil without a port for them

	// Confidential guests, those on a TEE, do not do what would open them to
	// the host, whatever the policy says.
	Confidential bool

	Intercept ttrpc.UnaryServerInterceptor // is called around each call, before the gate; may be nil
}

// Details are the facts about the agent that the host may ask for.
type Details struct {
	Version         string
	Init            bool     // the agent runs below our own PID 1
	StorageHandlers []string // driver names, sorted
	Seccomp         bool
}

// Server answers the host. Use it once.
type Server struct {
	deps  Deps
	gate  *gate
	ttrpc *ttrpc.Server

	limits  limits
	cancel  context.CancelFunc // ends the context of every call
	ctx     context.Context
	closed  chan struct{} // closed when connections are
	destroy sync.Once

	mu       sync.Mutex // guards conns and stopped
	conns    *conns     // nil before Serve
	stopped  bool       // Stop was called
	closeNow sync.Once
}

// New returns a server that does not listen yet, and that refuses every call
// with FAILED_PRECONDITION until Open.
func New(d Deps) (*Server, error) {
	srv, err := ttrpc.NewServer(ttrpc.WithUnaryServerInterceptor(d.Intercept))
	if err != nil {
		return nil, fmt.Errorf("make ttRPC server: %w", err)
	}
	s := &Server{
		deps: d, ttrpc: srv, limits: usualLimits(), closed: make(chan struct{}),
		gate: &gate{policy: d.Policy, watch: watchdog{grace: graceTime, brief: briefTime}},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	srv.RegisterService("grpc.AgentService", &ttrpc.ServiceDesc{Methods: s.agentMethods()})
	srv.RegisterService("grpc.Health", &ttrpc.ServiceDesc{Methods: s.healthMethods()})
	return s, nil
}

// NewRefusing returns a server that answers every call with FAILED_PRECONDITION
// and the reason, so that the host can tell why the guest does not start.
func NewRefusing(reason error) (*Server, error) {
	s, err := New(Deps{})
	if err == nil {
		s.gate.reason = reason
	}
	return s, err
}

// Open lets calls in. It is called once, when what the guest was booted with
// has been compared with the hardware.
func (s *Server) Open() { s.gate.open() }

// Serve answers connections from l until Stop, and then returns nil. It closes l.
func (s *Server) Serve(l net.Listener) error {
	c := keepConns(l, s.limits)
	s.mu.Lock()
	s.conns = c
	stopped := s.stopped
	s.mu.Unlock()
	if stopped {
		return l.Close()
	}
	if err := s.ttrpc.Serve(s.ctx, c); !errors.Is(err, ttrpc.ErrServerClosed) {
		return fmt.Errorf("serve the agent protocol: %w", err)
	}
	return nil
}

// InFlight is the number of calls being worked on.
func (s *Server) InFlight() int { return s.gate.inFlight() }

const (
	drainTime  = 2 * time.Second        // for calls that are being worked on
	hangUpTime = 500 * time.Millisecond // for the host to read the last reply and hang up
)

// Stop ends the service: no further calls, long polls are cut, the others are
// waited for, and then the connections are closed. ttRPC says nothing when a
// reply has been written, so the host gets a moment to read it and hang up. A
// pending GetOOMEvent gets no answer at all, because the shim would ask again.
func (s *Server) Stop(ctx context.Context) error {
	s.gate.shut()
	s.cancel()
	drain, cancel := context.WithTimeout(ctx, drainTime)
	defer cancel()
	err := s.gate.drain(drain)
	s.mu.Lock()
	c := s.conns
	s.stopped = true
	s.mu.Unlock()
	if c != nil {
		select {
		case <-c.gone():
		case <-time.After(hangUpTime):
		case <-ctx.Done():
		}
	}
	closed := s.ttrpc.Close()
	if c != nil {
		c.closeAll()
	}
	s.closeNow.Do(func() { close(s.closed) })
	if closed != nil && !errors.Is(closed, net.ErrClosed) {
		err = errors.Join(err, closed)
	}
	return err
}
