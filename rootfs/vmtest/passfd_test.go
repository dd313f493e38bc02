package vmtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/protos/agentpb"
	"github.com/coffer-cc/coffer/rootfs/vm"
	"github.com/coffer-cc/coffer/rpc/socket"
)

// passfdPort is the Rust shim's default, which the word opens.
const (
	passfdPort = 1027
	passfdWord = "agent.passfd_listener_port=1027"
)

// stream connects to the guest's port for streams, and returns the port that
// requests name the connection by.
func (g *Guest) stream(t *testing.T) (net.Conn, uint32) {
	t.Helper()
	dial := func(ctx context.Context, port uint32) (net.Conn, error) { return g.Dial(ctx, port) }
	if inside() {
		dial = func(ctx context.Context, port uint32) (net.Conn, error) {
			return socket.Dial(ctx, fmt.Sprintf("vsock://1:%d", port))
		}
	}
	conn, err := dial(t.Context(), passfdPort)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(callTimeout))
	port, ok := socket.Port(conn.LocalAddr())
	if !ok {
		t.Fatalf("the address %v has no port", conn.LocalAddr())
	}
	return conn, port
}

// pattern is what the container prints, and yes|head with it.
func pattern(n int) []byte {
	return bytes.Repeat([]byte("0123456789abcde\n"), n/16)
}

// streamGuest is a machine with the port open: the one this test runs in, or its
// own.
func streamGuest(t *testing.T) *Guest {
	t.Helper()
	if inside() {
		return Shared(t)
	}
	c := sharedConfig(t)
	c.Words = append(c.Words, passfdWord)
	g := Boot(t, c)
	g.createSandbox(t, "pod")
	return g
}

// TestStreamsPastTheAPI has a container and an exec whose streams are vsock
// connections, and a terminal.
func TestStreamsPastTheAPI(t *testing.T) {
	if !inside() && chosenTransport(t) == vm.VhostUser {
		t.Skip("the device program does not tell from which port the guest sees a connection come: TestInside runs this test in the guest")
	}
	g := streamGuest(t)
	out, port := g.stream(t)
	call(t, g.Agent.CreateContainer, &agentpb.CreateContainerRequest{
		ContainerId: "c1", ExecId: "c1", StdoutPort: port,
		OCI: containerSpec("c1", "sh", "-c", "busybox yes 0123456789abcde | head -c 1048576; exec sleep 1000"),
	})
	t.Cleanup(func() { call(t, g.Agent.RemoveContainer, &agentpb.RemoveContainerRequest{ContainerId: "c1"}) })
	call(t, g.Agent.StartContainer, &agentpb.StartContainerRequest{ContainerId: "c1"})
	got := make([]byte, mebibyte)
	if n, err := io.ReadFull(out, got); err != nil {
		t.Fatalf("after %d bytes: %v", n, err)
	}
	if !bytes.Equal(got, pattern(mebibyte)) {
		t.Error("other bytes arrived than were printed")
	}

	in, inPort := g.stream(t)
	tty, ttyPort := g.stream(t)
	call(t, g.Agent.ExecProcess, &agentpb.ExecProcessRequest{
		ContainerId: "c1", ExecId: "e1", StdinPort: inPort, StdoutPort: ttyPort,
		Process: &agentpb.Process{User: &agentpb.User{}, Args: []string{"sh", "-c", "read line; tty; echo got $line; exit 3"},
			Env: []string{"PATH=/bin"}, Cwd: "/", Terminal: true},
	})
	if _, err := in.Write([]byte("typed\n")); err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(tty); err != nil || !bytes.Contains(text, []byte("got typed\r\n")) || !bytes.Contains(text, []byte("/dev/pts/0")) {
		t.Errorf("the terminal showed %q, %v", text, err)
	}
	if r := call(t, g.Agent.WaitProcess, &agentpb.WaitProcessRequest{ContainerId: "c1", ExecId: "e1"}); r.Status != 3 {
		t.Errorf("the exec ended with %d", r.Status)
	}
	call(t, g.Agent.SignalProcess, &agentpb.SignalProcessRequest{ContainerId: "c1", Signal: uint32(unix.SIGKILL)})
	if rest, err := io.ReadAll(out); err != nil || len(rest) > 0 {
		t.Errorf("after the end: %q, %v", rest, err)
	}
	if code := g.wait(t, "c1"); code != 137 {
		t.Errorf("ended with %d", code)
	}
}
