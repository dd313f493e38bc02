package rpc

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/coffer-cc/coffer/agent/container/containertest"
	"github.com/coffer-cc/coffer/agent/guest"
	"github.com/coffer-cc/coffer/agent/policy"
	"github.com/coffer-cc/coffer/agent/sandbox"
	"github.com/coffer-cc/coffer/mount/device"
	"github.com/coffer-cc/coffer/mount/storage"
	"github.com/coffer-cc/coffer/protos/agentpb"
	"github.com/coffer-cc/coffer/rpc/passfd"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	os.Exit(m.Run())
}

// rules is a policy that denies what stands in denied.
type rules struct {
	mu     sync.Mutex
	denied map[string]bool
	asked  []string
	inputs []string
}

func (r *rules) Allow(_ context.Context, endpoint string, in policy.Input) (policy.Decision, error) {
	input, err := in()
	if err != nil {
		return policy.Decision{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, endpoint)
	r.inputs = append(r.inputs, string(input))
	if !json.Valid(input) {
		return policy.Decision{}, os.ErrInvalid
	}
	return policy.Decision{Allowed: !r.denied[endpoint], Reason: "because"}, nil
}

func (r *rules) Replace(context.Context, string) error { return nil }

func (r *rules) deny(endpoint string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.denied[endpoint] = true
}

func (r *rules) wasAsked(endpoint string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Contains(r.asked, endpoint)
}

// fixture is a server on a socket, over containers that are plain processes.
type fixture struct {
	*Server
	rules     *rules
	driver    *containertest.Driver
	storages  *storage.Manager
	dir, addr string
	destroyed chan struct{}
	streams   *pipes // takes connections for streams
}

// newFixture serves. More methods than the real ones can be given; they are
// called "test.Service".
func newFixture(t *testing.T, more func(*gate) map[string]ttrpc.Method) *fixture {
	t.Helper()
	return newLimitedFixture(t, usualLimits(), more)
}

func newLimitedFixture(t *testing.T, l limits, more func(*gate) map[string]ttrpc.Method) *fixture {
	t.Helper()
	dir := t.TempDir()
	f := &fixture{
		rules: &rules{denied: map[string]bool{}}, driver: &containertest.Driver{},
		dir: dir, addr: filepath.Join(dir, "s"), destroyed: make(chan struct{}),
	}
	sd := storage.Deps{Root: filepath.Join(dir, "run")}
	f.storages = storage.NewManager(sd, storage.Handlers(sd))
	machine := guest.New()
	streams := passfd.New(peerOf)
	f.streams = newPipes()
	streamed := make(chan error, 1)
	streamsEnd, endStreams := context.WithCancel(context.Background())
	go func() { streamed <- streams.Run(streamsEnd, f.streams) }()
	var err error
	f.Server, err = New(Deps{
		Policy: f.rules, Machine: machine, Metrics: &guest.Metrics{Machine: machine},
		Copier: &guest.Copier{Root: filepath.Join(dir, "run", "shared")},
		Sandbox: sandbox.New(sandbox.Deps{
			Containers: f.driver, Storage: f.storages,
			Devices: &device.Finder{Sys: filepath.Join(dir, "sys"), Timeout: 1}, // never comes
			Run:     filepath.Join(dir, "run"), Namespaces: filepath.Join(dir, "ns"),
			SetDNS: func(context.Context, []string) error { return nil },
		}),
		Details:   Details{Version: "1.2.3", StorageHandlers: []string{"blk"}, Seccomp: true},
		Destroyed: func() { close(f.destroyed) },
		Streams:   streams,
	})
	if err != nil {
		t.Fatal(err)
	}
	f.limits = l
	f.Open()
	if more != nil {
		f.ttrpc.RegisterService("test.Service", &ttrpc.ServiceDesc{Methods: more(f.gate)})
	}
	listener, err := net.Listen("unix", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- f.Serve(listener) }()
	t.Cleanup(func() {
		endStreams()
		if err := <-streamed; err != nil {
			t.Error(err)
		}
		if err := f.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
		eventually(t, "no call in flight", func() bool { return f.InFlight() == 0 })
		if err := f.deps.Sandbox.Destroy(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return f
}

func (f *fixture) dial(t *testing.T) *ttrpc.Client {
	t.Helper()
	conn, err := net.Dial("unix", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	c := ttrpc.NewClient(conn)
	t.Cleanup(func() { c.Close() })
	return c
}

func (f *fixture) agent(t *testing.T) agentpb.AgentServiceService {
	return agentpb.NewAgentServiceClient(f.dial(t))
}

// container creates and starts a container that runs script.
func (f *fixture) container(t *testing.T, a agentpb.AgentServiceService, id, script string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("containers need root to mount")
	}
	root := filepath.Join(f.dir, "run", "shared", "containers", id, "rootfs")
	if err := os.MkdirAll(root, 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := a.CreateContainer(t.Context(), &agentpb.CreateContainerRequest{
		ContainerId: id, ExecId: id,
		OCI: &agentpb.Spec{
			Version: "1.0.2", Root: &agentpb.Root{Path: root}, Linux: &agentpb.Linux{},
			Process: &agentpb.Process{Args: []string{"/bin/sh", "-c", script}, Cwd: "/", User: &agentpb.User{}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.StartContainer(t.Context(), &agentpb.StartContainerRequest{ContainerId: id}); err != nil {
		t.Fatal(err)
	}
}

func wantCode(t *testing.T, err error, code codes.Code, text string) {
	t.Helper()
	if status.Code(err) != code || !strings.Contains(status.Convert(err).Message(), text) {
		t.Errorf("%v, want %v with %q", err, code, text)
	}
}

// eventually waits for something that happens right after a reply was sent.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}
