package rpctest

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/containerd/ttrpc"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

// judge says whether a unit was answered as it should.
func (l *Life) judge(t testing.TB, u *unit) {
	t.Helper()
	if u.Method == "GetOOMEvent" {
		if !errors.Is(u.err, ttrpc.ErrClosed) {
			t.Errorf("%d %s: %v, want no answer", u.Seq, u.Method, u.err)
		}
		return
	}
	if u.err != nil {
		if !l.excused(u) {
			t.Errorf("%d %s: %v", u.Seq, u.Method, u.err)
		}
		return
	}
	command := l.commands()[keyOf(u.Request)]
	want, known := outcomes[command]
	switch {
	case !known && (isRead(u.Call) || u.Method == "WaitProcess"):
		t.Errorf("%q has no line in this test", command)
	case u.Method == "ReadStdout":
		contains(t, command+" stdout", u.data, want.stdout)
	case u.Method == "ReadStderr":
		contains(t, command+" stderr", u.data, want.stderr)
	case u.Method == "WaitProcess":
		if code := u.got.(*agentpb.WaitProcessResponse).GetStatus(); code != want.code {
			t.Errorf("%d: %q returned %d, want %d", u.Seq, command, code, want.code)
		}
	default:
		judgeReply(t, u)
	}
}

func contains(t testing.TB, what string, got []byte, want []string) {
	t.Helper()
	for _, w := range want {
		if !bytes.Contains(got, []byte(w)) {
			t.Errorf("%s: %q, want %q in it", what, got, w)
		}
	}
	if len(want) == 0 && len(got) > 0 {
		t.Errorf("%s: %q, want nothing", what, got)
	}
}

func judgeReply(t testing.TB, u *unit) {
	t.Helper()
	switch r := u.got.(type) {
	case *agentpb.HealthCheckResponse:
		if r.GetStatus() != agentpb.HealthCheckResponse_SERVING {
			t.Errorf("%d: %v", u.Seq, r)
		}
	case *agentpb.GuestDetailsResponse:
		if r.GetMemBlockSizeBytes() == 0 || r.GetAgentDetails() == nil {
			t.Errorf("%d: %v", u.Seq, r)
		}
	case *agentpb.WriteStreamResponse:
		if want := len(u.Request.(*agentpb.WriteStreamRequest).GetData()); int(r.GetLen()) != want {
			t.Errorf("%d: wrote %d of %d", u.Seq, r.GetLen(), want)
		}
	case *agentpb.StatsContainerResponse:
		if r.GetCgroupStats().GetMemoryStats().GetUsage().GetUsage() == 0 {
			t.Errorf("%d: %v", u.Seq, r)
		}
	case *agentpb.Metrics:
		if !strings.Contains(r.GetMetrics(), "coffer_containers") {
			t.Errorf("%d: no metrics of this agent", u.Seq)
		}
	case *agentpb.Routes:
		gateway := u.Request.(*agentpb.UpdateRoutesRequest).GetRoutes().GetRoutes()[0].GetGateway()
		if !strings.Contains(r.String(), gateway) {
			t.Errorf("%d: no route over %s in %v", u.Seq, gateway, r)
		}
	}
}
