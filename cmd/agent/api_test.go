package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/coffer-cc/coffer/agent/config"
	"github.com/coffer-cc/coffer/agent/guest"
	"github.com/coffer-cc/coffer/agent/ocispec"
	"github.com/coffer-cc/coffer/protos/agentpb"
)

// rulesOfAPI allow what a life needs, and no exec of the program "forbidden".
const rulesOfAPI = `package agent_policy

default AllowRequestsFailingPolicy := false
default CreateSandboxRequest := true
default CreateContainerRequest := true
default StartContainerRequest := true
default RemoveContainerRequest := true
default SignalProcessRequest := true
default WaitProcessRequest := true
default ReadStreamRequest := true
default WriteStreamRequest := true
default CloseStdinRequest := true
default DestroySandboxRequest := true
default GetOOMEventRequest := true
default GetGuestDetailsRequest := true
default StatsContainerRequest := true
default ExecProcessRequest := false

ExecProcessRequest { input.process.Args[0] != "forbidden" }
`

type api struct {
	agentpb.AgentServiceService
	t   *testing.T
	ctx context.Context
}

func (a api) must(what string, err error) {
	a.t.Helper()
	if err != nil {
		a.t.Fatalf("%s: %v", what, err)
	}
}

func (a api) refused(what string, err error, code codes.Code, text string) {
	a.t.Helper()
	if status.Code(err) != code || !strings.Contains(status.Convert(err).Message(), text) {
		a.t.Errorf("%s: %v, want %v with %q", what, err, code, text)
	}
}

// create asks for a container that runs a script.
func (a api) create(id, script string) error {
	_, err := a.CreateContainer(a.ctx, &agentpb.CreateContainerRequest{
		ContainerId: id, ExecId: id,
		OCI: &agentpb.Spec{
			Version: "1.0.2",
			Root:    &agentpb.Root{Path: filepath.Join(guest.SharedDir, "root"), Readonly: true},
			Process: &agentpb.Process{
				Args: []string{"sh", "-c", script}, Env: []string{"PATH=/bin"}, Cwd: "/",
				User: &agentpb.User{}, NoNewPrivileges: true,
			},
			Mounts: []*agentpb.Mount{
				{Destination: "/proc", Source: "proc", Type: "proc"},
				{Destination: "/dev", Source: "tmpfs", Type: "tmpfs", Options: []string{"nosuid", "mode=755"}},
			},
			Linux: &agentpb.Linux{
				CgroupsPath: "/api/" + id,
				Namespaces:  []*agentpb.LinuxNamespace{{Type: "ipc"}, {Type: "uts"}, {Type: "mount"}},
			},
		},
	})
	return err
}

func (a api) exec(id, execID string, args ...string) error {
	_, err := a.ExecProcess(a.ctx, &agentpb.ExecProcessRequest{
		ContainerId: id, ExecId: execID,
		Process: &agentpb.Process{Args: args, Env: []string{"PATH=/bin"}, Cwd: "/", User: &agentpb.User{}},
	})
	return err
}

func (a api) stdout(id, execID string) string {
	a.t.Helper()
	var out strings.Builder
	for {
		r, err := a.ReadStdout(a.ctx, &agentpb.ReadStreamRequest{ContainerId: id, ExecId: execID, Len: 32768})
		a.must("read", err)
		if len(r.GetData()) == 0 {
			return out.String()
		}
		out.Write(r.GetData())
	}
}

func (a api) wait(id, execID string) int32 {
	a.t.Helper()
	r, err := a.WaitProcess(a.ctx, &agentpb.WaitProcessRequest{ContainerId: id, ExecId: execID})
	a.must("wait", err)
	return r.GetStatus()
}

// TestAPI leads a pod through its life by way of the socket, with the parts
// that main puts together. The first round is for what is opened once.
func TestAPI(t *testing.T) {
	if !inGuest(t) {
		return
	}
	makeRoot(t, filepath.Join(guest.SharedDir, "root"))
	var before []string
	for round := range 2 {
		agent := bootAgent(t, rulesOfAPI, realAgent)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		a := api{agentpb.NewAgentServiceClient(agent.client), t, ctx}
		playAPI(a)
		<-agent.destroyed
		agent.end(t)
		cancel()
		after := leftovers(t)
		if round > 0 {
			sameLeftovers(t, before, after)
		}
		before = after
	}
}

func playAPI(a api) {
	_, err := a.CreateSandbox(a.ctx, &agentpb.CreateSandboxRequest{SandboxId: "pod1", Hostname: "web"})
	a.must("create sandbox", err)
	a.must("create", a.create("pod1", "hostname; echo warn >&2; exec sleep 1000"))
	refusals(a)
	_, err = a.StartContainer(a.ctx, &agentpb.StartContainerRequest{ContainerId: "pod1"})
	a.must("start", err)
	first, err := a.ReadStdout(a.ctx, &agentpb.ReadStreamRequest{ContainerId: "pod1", ExecId: "pod1", Len: 100})
	a.must("read", err)
	if string(first.GetData()) != "web\n" {
		a.t.Errorf("printed %q", first.GetData())
	}
	a.must("exec", a.exec("pod1", "e1", "sh", "-c", "echo in; exit 3"))
	if out, code := a.stdout("pod1", "e1"), a.wait("pod1", "e1"); out != "in\n" || code != 3 {
		a.t.Errorf("exec printed %q and returned %d", out, code)
	}
	stats, err := a.StatsContainer(a.ctx, &agentpb.StatsContainerRequest{ContainerId: "pod1"})
	if err != nil || stats.GetCgroupStats().GetPidsStats().GetCurrent() == 0 {
		a.t.Errorf("stats %v, %v", stats, err)
	}
	_, err = a.SignalProcess(a.ctx, &agentpb.SignalProcessRequest{ContainerId: "pod1", Signal: 9})
	a.must("kill", err)
	if code := a.wait("pod1", "pod1"); code != 137 {
		a.t.Errorf("killed init returned %d", code)
	}
	_, err = a.RemoveContainer(a.ctx, &agentpb.RemoveContainerRequest{ContainerId: "pod1"})
	a.must("remove", err)
	_, err = a.RemoveContainer(a.ctx, &agentpb.RemoveContainerRequest{ContainerId: "pod1"})
	a.refused("remove again", err, codes.NotFound, "pod1")
	_, err = a.DestroySandbox(a.ctx, &agentpb.DestroySandboxRequest{})
	a.must("destroy", err)
}

// refusals are calls that must change nothing.
func refusals(a api) {
	a.refused("duplicate id", a.create("pod1", "true"), codes.AlreadyExists, "pod1")
	a.refused("id that climbs", a.create("../pod2", "true"), codes.InvalidArgument, "container_id")
	a.refused("denied exec", a.exec("pod1", "e0", "forbidden"), codes.PermissionDenied, "ExecProcessRequest is blocked by policy")
	a.refused("exec in nobody", a.exec("pod9", "e0", "true"), codes.InvalidArgument, "Invalid container id")
	_, err := a.GetMetrics(a.ctx, &agentpb.GetMetricsRequest{})
	a.refused("call without a rule", err, codes.Internal, "GetMetricsRequest")
	_, err = a.CreateContainer(a.ctx, &agentpb.CreateContainerRequest{ContainerId: "c2", ExecId: "c2", OCI: &agentpb.Spec{
		Version: "1.0.2", Root: &agentpb.Root{Path: "/etc"}, Linux: &agentpb.Linux{},
		Process: &agentpb.Process{Args: []string{"true"}, Cwd: "/", User: &agentpb.User{}},
	}})
	if err == nil {
		a.t.Error("a directory of the guest became a root file system")
	}
	if _, err := os.Stat(filepath.Join(ocispec.Base, "c2")); err == nil {
		a.t.Error("a failed create left its bundle")
	}
}

// A configuration that cannot be read ends the agent before it listens.
func TestBadConfiguration(t *testing.T) {
	file := filepath.Join(t.TempDir(), "agent.toml")
	if err := os.WriteFile(file, []byte("server_addr = ["), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := config.Load(config.Sources{Args: []string{"--config", file}, File: file}); err == nil {
		t.Error("loaded")
	}
	p := &process{init: true, args: []string{"--config", file}}
	if err := p.configure(); err == nil || !strings.Contains(err.Error(), "configuration") {
		t.Errorf("%v", err)
	}
}
