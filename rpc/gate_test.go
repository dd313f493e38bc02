package rpc

import (
	"context"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

const testService = "test.Service"

func one(name string, m ttrpc.Method) map[string]ttrpc.Method {
	return map[string]ttrpc.Method{name: m}
}

func TestPanicBecomesAnError(t *testing.T) {
	f := newFixture(t, func(g *gate) map[string]ttrpc.Method {
		return one("Panic", method(g, ruled, func(context.Context, *agentpb.StartContainerRequest) (*emptypb.Empty, error) {
			panic("secret of the handler")
		}))
	})
	c := f.dial(t)
	for range 2 {
		err := c.Call(t.Context(), testService, "Panic", &agentpb.StartContainerRequest{ContainerId: "c1"}, &emptypb.Empty{})
		wantCode(t, err, codes.Internal, "StartContainerRequest: internal error")
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("the host sees %q", err)
		}
	}
	if _, err := agentpb.NewHealthClient(c).Check(t.Context(), &agentpb.CheckRequest{}); err != nil {
		t.Errorf("the connection did not survive: %v", err)
	}
	eventually(t, "no call in flight", func() bool { return f.InFlight() == 0 })
}

func TestDenied(t *testing.T) {
	var ran atomic.Bool
	f := newFixture(t, func(g *gate) map[string]ttrpc.Method {
		h := func(context.Context, *agentpb.StartContainerRequest) (*emptypb.Empty, error) {
			ran.Store(true)
			return empty, nil
		}
		return map[string]ttrpc.Method{"Ruled": method(g, ruled, h), "Poll": method(g, poll, h)}
	})
	f.rules.deny("StartContainerRequest")
	for _, name := range []string{"Ruled", "Poll"} {
		err := f.dial(t).Call(t.Context(), testService, name, &agentpb.StartContainerRequest{ContainerId: "c1"}, &emptypb.Empty{})
		wantCode(t, err, codes.PermissionDenied, "StartContainerRequest is blocked by policy: because")
	}
	if ran.Load() {
		t.Error("the handler ran")
	}
}

// The shape is judged before the policy is asked and before the handler runs.
func TestShapeComesFirst(t *testing.T) {
	f := newFixture(t, nil)
	_, err := f.agent(t).StartContainer(t.Context(), &agentpb.StartContainerRequest{ContainerId: "../c1"})
	wantCode(t, err, codes.InvalidArgument, "container_id")
	if f.rules.wasAsked("StartContainerRequest") {
		t.Error("the policy was asked")
	}
}

// A denied read takes from the stream, so that the workload is not blocked, and
// shows nothing.
func TestDeniedReadDrains(t *testing.T) {
	f := newFixture(t, nil)
	a := f.agent(t)
	f.container(t, a, "c1", "echo secret; echo warn >&2; sleep 1000")
	f.rules.deny("ReadStreamRequest")
	r := &agentpb.ReadStreamRequest{ContainerId: "c1", ExecId: "c1", Len: 7}
	for _, read := range []func(context.Context, *agentpb.ReadStreamRequest) (*agentpb.ReadStreamResponse, error){a.ReadStdout, a.ReadStderr} {
		got, err := read(t.Context(), r)
		if err != nil || len(got.GetData()) != 0 {
			t.Errorf("%q, %v", got.GetData(), err)
		}
	}
	f.rules.mu.Lock()
	clear(f.rules.denied)
	f.rules.mu.Unlock()
	kill := &agentpb.SignalProcessRequest{ContainerId: "c1", Signal: 9}
	if _, err := a.SignalProcess(t.Context(), kill); err != nil {
		t.Fatal(err)
	}
	got, err := a.ReadStdout(t.Context(), r)
	if err != nil || len(got.GetData()) != 0 {
		t.Errorf("the denied read left %q, %v", got.GetData(), err)
	}
}

func TestOversizedReply(t *testing.T) {
	size := maxReply - 64
	f := newFixture(t, func(g *gate) map[string]ttrpc.Method {
		return one("Long", method(g, ruled, func(context.Context, *agentpb.GetMetricsRequest) (*agentpb.Metrics, error) {
			return &agentpb.Metrics{Metrics: strings.Repeat("x", size)}, nil
		}))
	})
	c := f.dial(t)
	var got agentpb.Metrics
	if err := c.Call(t.Context(), testService, "Long", &agentpb.GetMetricsRequest{}, &got); err != nil || len(got.GetMetrics()) != size {
		t.Errorf("%d bytes, %v", len(got.GetMetrics()), err)
	}
	size = maxReply
	err := c.Call(t.Context(), testService, "Long", &agentpb.GetMetricsRequest{}, &got)
	wantCode(t, err, codes.ResourceExhausted, "reply of")
	if _, err := agentpb.NewHealthClient(c).Check(t.Context(), &agentpb.CheckRequest{}); err != nil {
		t.Errorf("the connection did not survive: %v", err)
	}
}

// The library's client refuses to send so much, so the frame is written by hand.
func TestOversizedRequest(t *testing.T) {
	f := newFixture(t, nil)
	conn, err := net.Dial("unix", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const size = 5 << 20
	frame := []byte{size >> 24, size >> 16 & 0xff, size >> 8 & 0xff, size & 0xff, 0, 0, 0, 1, 1, 0}
	if _, err := conn.Write(append(frame, make([]byte, size)...)); err != nil {
		t.Fatal(err)
	}
	refusal := readReply(t, conn, 1)
	if codes.Code(refusal.GetStatus().GetCode()) != codes.ResourceExhausted {
		t.Errorf("%v", refusal)
	}
	payload, err := proto.Marshal(&ttrpc.Request{Service: "grpc.Health", Method: "Check"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(append([]byte{0, 0, 0, byte(len(payload)), 0, 0, 0, 3, 1, 0}, payload...)); err != nil {
		t.Fatal(err)
	}
	if again := readReply(t, conn, 3); again.GetStatus().GetCode() != 0 {
		t.Errorf("the connection did not survive: %v", again)
	}
}

// readReply reads one short ttRPC message.
func readReply(t *testing.T, conn net.Conn, stream byte) *ttrpc.Response {
	t.Helper()
	head := make([]byte, 10)
	if _, err := io.ReadFull(conn, head); err != nil {
		t.Fatal(err)
	}
	if head[7] != stream || head[8] != 2 {
		t.Fatalf("header % x", head)
	}
	body := make([]byte, int(head[2])<<8|int(head[3]))
	if _, err := io.ReadFull(conn, body); err != nil {
		t.Fatal(err)
	}
	var r ttrpc.Response
	if err := proto.Unmarshal(body, &r); err != nil {
		t.Fatal(err)
	}
	return &r
}

// Only so many calls fit; those beyond are refused and leave nothing behind.
func TestTooManyCalls(t *testing.T) {
	g := &gate{policy: &rules{}, opened: true}
	for range maxCalls {
		if err := g.enter(poll); err != nil {
			t.Fatal(err)
		}
	}
	_, err := g.call(t.Context(), ruled, &agentpb.CheckRequest{}, nil)
	wantCode(t, err, codes.ResourceExhausted, "calls are in flight")
	for range maxCalls {
		g.leave(poll)
	}
	if n := g.inFlight(); n != 0 {
		t.Errorf("%d in flight", n)
	}
}
