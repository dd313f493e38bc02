package vmtest

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/coffer-cc/coffer/rootfs/image"
	"github.com/coffer-cc/coffer/rootfs/vm"
)

// Ports as the shims ask for them.
const (
	logPort     = 1025
	consolePort = 1026
)

// TestLogAndConsolePorts reads the log where a shim collects it, and enters the
// guest by the debug console.
func TestLogAndConsolePorts(t *testing.T) {
	ownMachine(t)
	if chosenTransport(t) == vm.Loopback {
		t.Skip("the host has no vsock to the guest")
	}
	c := Variant{Add: []image.Addition{{Source: "/bin/busybox", Target: "/bin/busybox"}, {Source: "/bin/busybox", Target: "/bin/sh"}}}.Build(t)
	c.Words = []string{
		fmt.Sprintf("agent.log_vport=%d", logPort),
		"agent.debug_console", fmt.Sprintf("agent.debug_console_vport=%d", consolePort),
	}
	machine := Start(t, c)
	defer machine.Stop()
	defer showConsole(t, machine)
	ctx, cancel := context.WithTimeout(t.Context(), bootTimeout)
	defer cancel()
	// The last step of the boot: what follows goes to the port.
	if err := machine.WaitConsole(ctx, `"protection"`); err != nil {
		t.Fatal(err)
	}
	log := dialPort(ctx, t, machine, logPort)
	defer log.Close()
	lineWith(t, log, readyText)
	if strings.Contains(machine.Console(), readyText) {
		t.Error("the log goes to the serial line as well")
	}
	shell := dialPort(ctx, t, machine, consolePort)
	defer shell.Close()
	fmt.Fprintln(shell, "echo; echo is:$((6*7)) $(/bin/busybox tty) $(/bin/busybox id -u); exit")
	if got := lineWith(t, shell, "is:42"); !strings.Contains(got, "is:42 /dev/pts/0 0") {
		t.Errorf("the console says %q", got)
	}
}

// dialPort connects once the agent listens.
func dialPort(ctx context.Context, t *testing.T, machine *vm.VM, port uint32) net.Conn {
	t.Helper()
	for {
		conn, err := machine.Dial(ctx, port)
		if err == nil {
			conn.SetDeadline(time.Now().Add(callTimeout))
			return conn
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("port %d: %v", port, err)
		}
	}
}

// lineWith reads until a line holds text, and returns it.
func lineWith(t *testing.T, conn net.Conn, text string) string {
	t.Helper()
	lines := bufio.NewReader(conn)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatalf("no line with %q: %v", text, err)
		}
		if strings.Contains(line, text) {
			return strings.TrimSpace(line)
		}
	}
}

// TestNoConsole sees both ports closed where nobody asked for them.
func TestNoConsole(t *testing.T) {
	g := Shared(t)
	if g.VM == nil {
		t.Skip("the host dials these ports")
	}
	for _, port := range []uint32{logPort, consolePort} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		if conn, err := g.Dial(ctx, port); err == nil {
			conn.Close()
			t.Errorf("port %d is open", port)
		}
		cancel()
	}
}
