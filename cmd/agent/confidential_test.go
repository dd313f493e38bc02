package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/coffer-cc/coffer/agent/guest"
	"github.com/coffer-cc/coffer/agent/network"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/protos/agentpb"
	"github.com/coffer-cc/coffer/rpc/socket"
)

// TestHostOfAConfidentialGuest runs the agent as it ships on a TEE, under a
// policy that allows everything, and asks for what would open the guest to its
// host.
func TestHostOfAConfidentialGuest(t *testing.T) {
	if !inGuest(t) {
		return
	}
	stack, err := network.Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer stack.Close()
	if err := stack.LoopbackUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	policy := filepath.Join(t.TempDir(), "policy.rego")
	if err := os.WriteFile(policy, []byte(allowAll), 0o600); err != nil {
		t.Fatal(err)
	}
	hw := snpHardware(t)
	coverDev(t, map[string]string{})
	evidencetest.MountTSM(t, hw.tsm)
	m := startAgent(t, buildAgent(t), hw, "policy_file = \""+policy+"\"", "mem_agent_enable = true")
	m.wantServing()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conn, err := socket.Dial(ctx, "unix://"+m.address)
	if err != nil {
		t.Fatal(err)
	}
	client := ttrpc.NewClient(conn)
	defer client.Close()
	a := agentpb.NewAgentServiceClient(client)
	refusesHost(ctx, t, a)
	if _, err := a.CreateSandbox(ctx, &agentpb.CreateSandboxRequest{Hostname: "pod", SandboxId: "pod1"}); err != nil {
		t.Errorf("what every pod needs: %v", err)
	}
}

func refusesHost(ctx context.Context, t *testing.T, a agentpb.AgentServiceService) {
	t.Helper()
	on := true
	for name, ask := range map[string]func() error{
		"swap at a slot": func() error {
			_, err := a.AddSwap(ctx, &agentpb.AddSwapRequest{PCIPath: []uint32{2, 3}})
			return err
		},
		"swap at a path": func() error {
			_, err := a.AddSwapPath(ctx, &agentpb.AddSwapPathRequest{Path: "/dev/vda"})
			return err
		},
		"mem-agent's swap": func() error {
			_, err := a.MemAgentMemcgSet(ctx, &agentpb.MemAgentMemcgConfig{Swap: &on})
			return err
		},
		"clock": func() error {
			_, err := a.SetGuestDateTime(ctx, &agentpb.SetGuestDateTimeRequest{Sec: time.Now().Unix()})
			return err
		},
		"guest hooks": func() error {
			_, err := a.CreateSandbox(ctx, &agentpb.CreateSandboxRequest{Hostname: "pod", SandboxId: "pod1", GuestHookPath: "/hooks"})
			return err
		},
		"kernel module": func() error {
			_, err := a.CreateSandbox(ctx, &agentpb.CreateSandboxRequest{Hostname: "pod", SandboxId: "pod1", KernelModules: []*agentpb.KernelModule{{Name: "dummy"}}})
			return err
		},
		"symlink where containers mount from": func() error {
			_, err := a.CopyFile(ctx, &agentpb.CopyFileRequest{Path: guest.SharedDir + "/hosts", FileMode: unix.S_IFLNK | 0o777, Data: []byte("x")})
			return err
		},
	} {
		if err := ask(); status.Code(err) != codes.PermissionDenied || strings.Contains(err.Error(), "policy") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
