package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/agent/guest"
	"github.com/coffer-cc/coffer/protos/agentpb"
)

// Where a peer pod has its agent and its network, by the configuration and the
// units of cloud-api-adaptor.
const (
	peerSocket = "/run/kata-containers/agent.sock"
	peerNetns  = "/run/netns/podns"
)

// TestPeerPod is the agent as the service of a machine that is one pod: started
// with a file, on a unix socket below the directory that CreateSandbox clears,
// and with the pod's network in a namespace that somebody else has made.
func TestPeerPod(t *testing.T) {
	if !inGuest(t) {
		return
	}
	dir := t.TempDir()
	rules := filepath.Join(dir, "policy.rego")
	config := filepath.Join(dir, "agent-config.toml")
	for path, text := range map[string]string{
		rules:  rulesOfAPI,
		config: fmt.Sprintf("server_addr = \"unix://%s\"\nguest_components_procs = \"none\"\npolicy_file = %q\n", peerSocket, rules),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	makeRoot(t, filepath.Join(guest.SharedDir, "root"))
	network := makeNetns(t, peerNetns)
	leaveSocket(t, peerSocket)
	ended := make(chan error, 1)
	go func() { ended <- (&process{args: []string{"--config", config}}).run() }()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	playPeerPod(ctx, t, network)
	if err := <-ended; err != nil {
		t.Errorf("the agent ended with %v", err)
	}
	if _, err := net.Dial("unix", peerSocket); err == nil {
		t.Error("the socket is still open")
	}
}

func playPeerPod(ctx context.Context, t *testing.T, network string) {
	t.Helper()
	first := api{agentpb.NewAgentServiceClient(dialPeer(ctx, t)), t, ctx}
	_, err := first.CreateSandbox(ctx, &agentpb.CreateSandboxRequest{SandboxId: "pod1"})
	first.must("create sandbox", err)
	// The forwarder may have to dial again, after the directory was cleared.
	a := api{agentpb.NewAgentServiceClient(dialPeer(ctx, t)), t, ctx}
	_, err = a.CreateContainer(ctx, &agentpb.CreateContainerRequest{ContainerId: "pod1", ExecId: "pod1", OCI: &agentpb.Spec{
		Version: "1.0.2",
		Root:    &agentpb.Root{Path: filepath.Join(guest.SharedDir, "root"), Readonly: true},
		Process: &agentpb.Process{
			Args: []string{"sh", "-c", "busybox readlink /proc/self/ns/net"}, Env: []string{"PATH=/bin"}, Cwd: "/", User: &agentpb.User{},
		},
		Mounts: []*agentpb.Mount{{Destination: "/proc", Source: "proc", Type: "proc"}},
		Linux: &agentpb.Linux{CgroupsPath: "/api/pod1", Namespaces: []*agentpb.LinuxNamespace{
			{Type: "ipc"}, {Type: "uts"}, {Type: "mount"}, {Type: "network", Path: peerNetns},
		}},
	}})
	a.must("create", err)
	_, err = a.StartContainer(ctx, &agentpb.StartContainerRequest{ContainerId: "pod1"})
	a.must("start", err)
	if got := strings.TrimSpace(a.stdout("pod1", "pod1")); got != network {
		t.Errorf("the container is in the network namespace %q, want %q", got, network)
	}
	if code := a.wait("pod1", "pod1"); code != 0 {
		t.Errorf("ended with %d", code)
	}
	_, err = a.DestroySandbox(ctx, &agentpb.DestroySandboxRequest{})
	a.must("destroy", err)
}

// dialPeer connects once the agent serves.
func dialPeer(ctx context.Context, t *testing.T) *ttrpc.Client {
	t.Helper()
	for {
		conn, err := net.Dial("unix", peerSocket)
		if err == nil {
			client := ttrpc.NewClient(conn)
			t.Cleanup(func() { client.Close() })
			return client
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal(err)
		}
	}
}

// leaveSocket is what an agent that was killed leaves behind.
func leaveSocket(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
}

// makeNetns makes a named network namespace and returns how /proc shows it.
func makeNetns(t *testing.T, path string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o400); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
		}
		failed <- err
	}()
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, 0); err != nil {
			t.Error(err)
		}
	})
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("net:[%d]", st.Ino)
}
