package rpc

import (
	"context"
	"errors"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

// TestStop ends a sandbox as a shim does: with a wait and a question for memory
// kills in flight. The wait is answered, the destroy is answered, the question
// is not: its connection just ends.
func TestStop(t *testing.T) {
	f := newFixture(t, nil)
	a := f.agent(t)
	f.container(t, a, "c1", "sleep 1000")
	waited, asked := make(chan error, 1), make(chan error, 1)
	go func() {
		r, err := a.WaitProcess(context.Background(), &agentpb.WaitProcessRequest{ContainerId: "c1", ExecId: "c1"})
		if err == nil && r.GetStatus() != 137 {
			err = errors.New("wrong status")
		}
		waited <- err
	}()
	go func() {
		_, err := a.GetOOMEvent(context.Background(), &agentpb.GetOOMEventRequest{})
		asked <- err
	}()
	eventually(t, "both are in flight", func() bool { return f.InFlight() == 2 })
	if _, err := a.DestroySandbox(t.Context(), &agentpb.DestroySandboxRequest{}); err != nil {
		t.Errorf("destroy: %v", err)
	}
	<-f.destroyed
	if err := <-waited; err != nil {
		t.Errorf("wait: %v", err)
	}
	if err := f.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-asked; !errors.Is(err, ttrpc.ErrClosed) {
		t.Errorf("the question was answered: %v", err)
	}
	eventually(t, "no call in flight", func() bool { return f.InFlight() == 0 })
}

// A destroy that Stop overtakes is answered all the same.
func TestStopWaitsForTheReply(t *testing.T) {
	begun, goOn := make(chan struct{}), make(chan struct{})
	f := newFixture(t, func(g *gate) map[string]ttrpc.Method {
		return one("Slow", method(g, ruled, func(context.Context, *agentpb.StartContainerRequest) (*emptypb.Empty, error) {
			close(begun)
			<-goOn
			return empty, nil
		}))
	})
	c := f.dial(t)
	called := make(chan error, 1)
	go func() {
		called <- c.Call(context.Background(), testService, "Slow", &agentpb.StartContainerRequest{ContainerId: "c1"}, &emptypb.Empty{})
	}()
	<-begun
	stopped := make(chan error, 1)
	go func() { stopped <- f.Stop(context.Background()) }()
	late := f.dial(t)
	eventually(t, "no more calls", func() bool {
		_, err := agentpb.NewHealthClient(late).Check(t.Context(), &agentpb.CheckRequest{})
		return status.Code(err) == codes.Unavailable
	})
	close(goOn)
	if err := <-called; err != nil {
		t.Errorf("the call that was in flight: %v", err)
	}
	c.Close()
	late.Close()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// A call that ignores its end holds Stop up for a bounded time, and Stop says so.
func TestStopIsBounded(t *testing.T) {
	stuck := make(chan struct{})
	begun := make(chan struct{})
	s, err := New(Deps{Policy: &rules{}})
	if err != nil {
		t.Fatal(err)
	}
	s.Open()
	m := method(s.gate, ruled, func(context.Context, *agentpb.StartContainerRequest) (*emptypb.Empty, error) {
		close(begun)
		<-stuck
		return empty, nil
	})
	go m(t.Context(), func(r any) error { //nolint:errcheck // nobody is there to see it
		r.(*agentpb.StartContainerRequest).ContainerId = "c1"
		return nil
	})
	<-begun
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := s.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	close(stuck)
	eventually(t, "no call in flight", func() bool { return s.InFlight() == 0 })
}

// A host that hangs up takes its calls with it.
func TestHangUpEndsCalls(t *testing.T) {
	f := newFixture(t, nil)
	a := f.agent(t)
	f.container(t, a, "c1", "sleep 1000")
	other := f.dial(t)
	go agentpb.NewAgentServiceClient(other).WaitProcess(context.Background(), //nolint:errcheck // it ends with the connection
		&agentpb.WaitProcessRequest{ContainerId: "c1", ExecId: "c1"})
	eventually(t, "the wait is in flight", func() bool { return f.InFlight() == 1 })
	other.Close()
	eventually(t, "no call in flight", func() bool { return f.InFlight() == 0 })
}

// leaks returns the goroutines that belong to this package or to ttRPC.
func leaks() []string {
	buf := make([]byte, 1<<20)
	var out []string
	for _, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		ours := strings.Contains(g, "coffer/rpc.") || strings.Contains(g, "containerd/ttrpc")
		if ours && !strings.Contains(g, "testing.tRunner") {
			out = append(out, g)
		}
	}
	return out
}

func TestNothingIsLeft(t *testing.T) {
	t.Run("life", func(t *testing.T) {
		f := newFixture(t, nil)
		a := f.agent(t)
		f.container(t, a, "c1", "echo x; sleep 1000")
		for range 3 {
			go a.WaitProcess(context.Background(), &agentpb.WaitProcessRequest{ContainerId: "c1"}) //nolint:errcheck // it is cut
			go a.GetOOMEvent(context.Background(), &agentpb.GetOOMEventRequest{})                  //nolint:errcheck // it is cut
		}
		eventually(t, "all are in flight", func() bool { return f.InFlight() == 6 })
	})
	eventually(t, "no goroutine is left", func() bool { return len(leaks()) == 0 })
}

// A signal may come before the first Accept.
func TestServeAfterStop(t *testing.T) {
	s, err := New(Deps{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(l); err != nil {
		t.Error(err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener is open: %v", err)
	}
}

// The listener may fail on its own, and Serve says so.
func TestServeReportsItsListener(t *testing.T) {
	s, err := New(Deps{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := s.Serve(l); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v", err)
	}
}
