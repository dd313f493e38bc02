package rpc

import (
	"context"
	"maps"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/containerd/ttrpc"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

func described(file protoreflect.FileDescriptor, service string) []string {
	var out []string
	methods := file.Services().ByName(protoreflect.Name(service)).Methods()
	for i := range methods.Len() {
		out = append(out, string(methods.Get(i).Name()))
	}
	slices.Sort(out)
	return out
}

func TestMethodsAreThoseOfTheProtocol(t *testing.T) {
	s, err := New(Deps{})
	if err != nil {
		t.Fatal(err)
	}
	have := slices.Sorted(maps.Keys(s.agentMethods()))
	if want := described(agentpb.File_protos_agent_proto, "AgentService"); !slices.Equal(have, want) {
		t.Errorf("methods are\n%v, the protocol has\n%v", have, want)
	}
	health := slices.Sorted(maps.Keys(s.healthMethods()))
	if want := described(agentpb.File_protos_health_proto, "Health"); !slices.Equal(health, want) {
		t.Errorf("Health has %v, the protocol %v", health, want)
	}
}

func TestUnknownMethodIsUnimplemented(t *testing.T) {
	c := newFixture(t, nil).dial(t)
	err := c.Call(t.Context(), "grpc.AgentService", "NoSuchMethod", &emptypb.Empty{}, &emptypb.Empty{})
	wantCode(t, err, codes.Unimplemented, "")
}

// Every method passes the policy but for health checks, and none ends the
// server over an empty request.
func TestEveryMethodIsRuled(t *testing.T) {
	f := newFixture(t, nil)
	for name := range f.agentMethods() {
		m := agentpb.File_protos_agent_proto.Services().ByName("AgentService").Methods().ByName(protoreflect.Name(name))
		f.rules.deny(string(m.Input().Name()))
	}
	for name, m := range f.agentMethods() {
		_, err := m(context.Background(), func(any) error { return nil })
		if code := status.Code(err); code != codes.PermissionDenied && code != codes.InvalidArgument && code != codes.NotFound {
			t.Errorf("%s: %v", name, err)
		}
	}
	h := agentpb.NewHealthClient(f.dial(t))
	check, err := h.Check(t.Context(), &agentpb.CheckRequest{})
	if err != nil || check.GetStatus() != agentpb.HealthCheckResponse_SERVING {
		t.Errorf("check: %v, %v", check, err)
	}
	v, err := h.Version(t.Context(), &agentpb.CheckRequest{})
	if err != nil || v.GetAgentVersion() != "1.2.3" || v.GetGrpcVersion() != "0.0.1" {
		t.Errorf("version: %v, %v", v, err)
	}
	if f.rules.wasAsked("CheckRequest") {
		t.Error("a health check was put before the policy")
	}
}

func TestGuestDetails(t *testing.T) {
	a := newFixture(t, nil).agent(t)
	d, err := a.GetGuestDetails(t.Context(), &agentpb.GuestDetailsRequest{MemBlockSize: true, MemHotplugProbe: true})
	if err != nil {
		t.Fatal(err)
	}
	got := d.GetAgentDetails()
	if got.GetVersion() != "1.2.3" || !got.GetSupportsSeccomp() || !slices.Equal(got.GetExtraFeatures(), []string{"agent-policy", "seccomp"}) {
		t.Errorf("details %v", got)
	}
}

// A method of the wrong shape is refused before it can be looked at.
func TestUndecodableRequest(t *testing.T) {
	f := newFixture(t, func(g *gate) map[string]ttrpc.Method {
		return map[string]ttrpc.Method{"Exec": method(g, ruled, func(context.Context, *agentpb.ExecProcessRequest) (*emptypb.Empty, error) {
			t.Error("the handler ran")
			return empty, nil
		})}
	})
	// A WriteStreamRequest has bytes where an ExecProcessRequest has a message.
	bad := &agentpb.WriteStreamRequest{ContainerId: "c1", ExecId: "e", Data: []byte{0xff}}
	err := f.dial(t).Call(t.Context(), "test.Service", "Exec", bad, &emptypb.Empty{})
	wantCode(t, err, codes.InvalidArgument, "request cannot be decoded")
}
