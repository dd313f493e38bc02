package rpc

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

// serveClosed serves s, which was never opened, and returns a client.
func serveClosed(t *testing.T, s *Server) *ttrpc.Client {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := errors.Join(s.Stop(context.Background()), <-served); err != nil {
			t.Error(err)
		}
	})
	conn, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := ttrpc.NewClient(conn)
	t.Cleanup(func() { c.Close() })
	return c
}

// TestClosedUntilOpened asks for every method of a server whose parts do not
// even exist: any handler that ran would panic.
func TestClosedUntilOpened(t *testing.T) {
	fresh, err := New(Deps{})
	if err != nil {
		t.Fatal(err)
	}
	refusing, err := NewRefusing(errors.New("initdata differs"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		s    *Server
		text string
	}{
		{"fresh", fresh, "the guest has not been checked yet"},
		{"refusing", refusing, "the guest refuses to start: initdata differs"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := serveClosed(t, tt.s)
			methods := tt.s.agentMethods()
			if len(methods) == 0 {
				t.Fatal("no methods")
			}
			for name := range methods {
				err := c.Call(t.Context(), "grpc.AgentService", name, &emptypb.Empty{}, &emptypb.Empty{})
				wantCode(t, err, codes.FailedPrecondition, tt.text)
			}
			_, err := agentpb.NewHealthClient(c).Check(t.Context(), &agentpb.CheckRequest{})
			wantCode(t, err, codes.FailedPrecondition, tt.text)
		})
	}
}
