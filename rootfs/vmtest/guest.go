package vmtest

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/ttrpc"

	"github.com/coffer-cc/coffer/protos/agentpb"
	"github.com/coffer-cc/coffer/rootfs/vm"
)

// agentPort is where the agent listens on vsock.
const agentPort = 1024

// bootTimeout allows for a busy machine without KVM.
const bootTimeout = 90 * time.Second

// A Guest is a machine and a client of its agent.
type Guest struct {
	*vm.VM // nil when the test itself runs inside the guest
	Agent  agentpb.AgentServiceService
	Health agentpb.HealthService
	dial   func(ctx context.Context) (net.Conn, error)
}

// Start boots a machine from the tree's image without waiting for its agent.
// The machine ends with the test, and a failing test prints its console.
func Start(t testing.TB, c vm.Config) *vm.VM {
	t.Helper()
	b, err := prepare()
	if err != nil {
		t.Fatal(err)
	}
	if c.Kernel == "" {
		c.Kernel = filepath.Join(b.dir, "vmlinuz")
	}
	if c.Initrd == "" && c.Root == "" {
		c.Initrd = filepath.Join(b.dir, "initrd.img")
	}
	c.VsockDevice = b.vsockDevice
	if c.Transport == vm.Auto {
		c.Transport = vm.Transport(*transportFlag)
	}
	// A machine may outlive the test that needs it first.
	machine, err := vm.Start(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	return machine
}

// Boot starts a machine for one test and waits until its agent serves.
func Boot(t testing.TB, c vm.Config) *Guest {
	t.Helper()
	machine := Start(t, c)
	t.Cleanup(func() {
		showConsole(t, machine)
		if err := machine.Stop(); err != nil {
			t.Error(err)
		}
	})
	g := newGuest(func(ctx context.Context) (net.Conn, error) { return machine.Dial(ctx, agentPort) })
	g.VM = machine
	g.waitServing(t)
	return g
}

// readyText is in the line that the agent logs when it begins to serve.
const readyText = `"ready"`

// newGuest makes a client that connects when it is first used.
func newGuest(dial func(ctx context.Context) (net.Conn, error)) *Guest { return &Guest{dial: dial} }

// waitServing connects and asks for health until the agent answers, the way a
// shim does.
func (g *Guest) waitServing(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bootTimeout)
	defer cancel()
	ended := make(<-chan struct{})
	if g.VM != nil {
		ended = g.Done()
		// A caller who is early can leave the device program stuck for good.
		if err := g.WaitConsole(ctx, readyText); err != nil {
			t.Fatalf("the agent does not get ready: %v", err)
		}
	}
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		err := g.connect(ctx)
		if err == nil {
			tick.Stop()
			return
		}
		select {
		case <-tick.C:
		case <-ended:
			t.Fatalf("the machine ended before its agent served: %v", err)
		case <-ctx.Done():
			t.Fatalf("the agent does not serve: %v", err)
		}
	}
}

// connect makes one try. It is short, because the device program keeps an early
// caller waiting for an answer that a guest without its driver never gives.
func (g *Guest) connect(ctx context.Context) error {
	short, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := g.dial(short)
	if err != nil {
		return err
	}
	client := ttrpc.NewClient(conn)
	health := agentpb.NewHealthClient(client)
	if _, err := health.Check(short, &agentpb.CheckRequest{}); err != nil {
		client.Close()
		return err
	}
	g.Agent, g.Health = agentpb.NewAgentServiceClient(client), health
	return nil
}

// showConsole logs the end of the console of a test that failed.
func showConsole(t testing.TB, machine *vm.VM) {
	const shown = 16 << 10
	if text := machine.Console(); t.Failed() {
		t.Logf("console of the guest:\n%s", text[max(0, len(text)-shown):])
	}
}
