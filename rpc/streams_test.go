package rpc

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

// hostPort is the name of the far end of a stream.
type hostPort uint32

func (hostPort) Network() string { return "vsock" }
func (hostPort) String() string  { return "host" }

func peerOf(a net.Addr) (uint32, bool) {
	p, ok := a.(hostPort)
	return uint32(p), ok
}

type named struct {
	net.Conn
	hostPort
}

func (n named) RemoteAddr() net.Addr { return n.hostPort }

// stream connects from a port of the host.
func (f *fixture) stream(t *testing.T, port uint32) net.Conn {
	t.Helper()
	there, here := net.Pipe()
	t.Cleanup(func() { there.Close() })
	there.SetDeadline(time.Now().Add(5 * time.Second))
	f.streams.conns <- named{here, hostPort(port)}
	return there
}

func ended(t *testing.T, c net.Conn) {
	t.Helper()
	if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
		t.Errorf("%d bytes, %v, want the end", len(b), err)
	}
}

func TestStreamsPastTheAPI(t *testing.T) {
	f := newFixture(t, nil)
	a := f.agent(t)
	f.container(t, a, "c1", "sleep 1000")
	in, out := f.stream(t, 1), f.stream(t, 2)
	_, err := a.ExecProcess(t.Context(), &agentpb.ExecProcessRequest{
		ContainerId: "c1", ExecId: "e1", StdinPort: 1, StdoutPort: 2,
		Process: &agentpb.Process{Args: []string{"/bin/sh", "-c", "read line; echo got $line; exit 3"}, Cwd: "/", User: &agentpb.User{}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write([]byte("it\n")); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(out); string(b) != "got it\n" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	r, err := a.WaitProcess(t.Context(), &agentpb.WaitProcessRequest{ContainerId: "c1", ExecId: "e1"})
	if err != nil || r.GetStatus() != 3 {
		t.Errorf("%v, %v", r, err)
	}
	ended(t, in)
}

// What the policy keeps from the host it does not get this way either, and the
// workload goes on.
func TestStreamsAreRuled(t *testing.T) {
	f := newFixture(t, nil)
	a := f.agent(t)
	f.container(t, a, "c1", "sleep 1000")
	f.rules.deny("ReadStreamRequest")
	f.rules.deny("WriteStreamRequest")
	in, out, errs := f.stream(t, 1), f.stream(t, 2), f.stream(t, 3)
	_, err := a.ExecProcess(t.Context(), &agentpb.ExecProcessRequest{
		ContainerId: "c1", ExecId: "e1", StdinPort: 1, StdoutPort: 2, StderrPort: 3,
		Process: &agentpb.Process{Args: []string{"/bin/sh", "-c", "seq 1 100000; echo secret >&2; exit 4"}, Cwd: "/", User: &agentpb.User{}, Env: []string{"PATH=/bin:/usr/bin"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ended(t, in)
	ended(t, out)
	ended(t, errs)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r, err := a.WaitProcess(ctx, &agentpb.WaitProcessRequest{ContainerId: "c1", ExecId: "e1"})
	if err != nil || r.GetStatus() != 4 {
		t.Errorf("%v, %v", r, err)
	}
}

// A request that names a connection which is not there makes no process, and one
// that fails closes what it took.
func TestStreamsOfFailedRequests(t *testing.T) {
	f := newFixture(t, nil)
	a := f.agent(t)
	f.container(t, a, "c1", "sleep 1000")
	exec := &agentpb.ExecProcessRequest{
		ContainerId: "c1", ExecId: "e1", StdoutPort: 9,
		Process: &agentpb.Process{Args: []string{"/bin/true"}, Cwd: "/", User: &agentpb.User{}},
	}
	_, err := a.ExecProcess(t.Context(), exec)
	wantCode(t, err, codes.Unavailable, "stdout_port 9")
	_, err = a.WaitProcess(t.Context(), &agentpb.WaitProcessRequest{ContainerId: "c1", ExecId: "e1"})
	wantCode(t, err, codes.NotFound, "e1")
	out := f.stream(t, 9)
	exec.ContainerId = "c2"
	if _, err := a.ExecProcess(t.Context(), exec); err == nil {
		t.Error("no such container, and no error")
	}
	ended(t, out)
}
