package passfd_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/rpc/passfd"
)

// port is the name of a connection's far end.
type port uint32

func (port) Network() string { return "vsock" }
func (port) String() string  { return "host" }

func peerPort(a net.Addr) (uint32, bool) {
	p, ok := a.(port)
	return uint32(p), ok
}

// from is our end of a connection that came from a port.
type from struct {
	net.Conn
	addr net.Addr
}

func (f from) RemoteAddr() net.Addr { return f.addr }

// host hands connections to a Port that runs.
type host struct {
	t     *testing.T
	conns chan net.Conn
	gone  chan struct{}
	*passfd.Port
	stop func()
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{t: t, conns: make(chan net.Conn), gone: make(chan struct{}), Port: passfd.New(peerPort)}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- h.Run(ctx, h) }()
	h.stop = func() {
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(cancel)
	return h
}

func (h *host) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.gone:
		return nil, net.ErrClosed
	}
}

func (h *host) Close() error   { close(h.gone); return nil }
func (h *host) Addr() net.Addr { return port(0) }

// dial connects from a port and returns the host's end.
func (h *host) dial(a net.Addr) net.Conn {
	there, here := net.Pipe()
	h.t.Cleanup(func() { there.Close() })
	h.conns <- from{here, a}
	return there
}

// ended waits for the other side to close c.
func ended(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the connection is not closed: %v", err)
	}
}

// joined sees that ours and theirs are two ends of one connection.
func joined(t *testing.T, ours, theirs net.Conn) {
	t.Helper()
	go ours.Write([]byte("x")) //nolint:errcheck // the read tells
	theirs.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := theirs.Read(make([]byte, 1)); err != nil {
		t.Errorf("not the same connection: %v", err)
	}
}

func TestTake(t *testing.T) {
	h := newHost(t)
	out, in := h.dial(port(11)), h.dial(port(10))
	s, err := h.Take(t.Context(), 10, 11, 0)
	if err != nil {
		t.Fatal(err)
	}
	joined(t, s.Stdin, in)
	joined(t, s.Stdout, out)
	if s.Stderr != nil {
		t.Error("a connection from no port")
	}
	s.Close()
	ended(t, in)
	if _, err := h.Take(t.Context(), 10, 0, 0); !errdefs.IsUnavailable(err) {
		t.Errorf("taken twice: %v", err)
	}
	h.stop()
}

// The request may be faster than the connection that it names.
func TestTakeWaits(t *testing.T) {
	h := newHost(t)
	taken := make(chan error, 1)
	go func() {
		_, err := h.Take(context.Background(), 0, 7, 0)
		taken <- err
	}()
	h.dial(port(6))
	h.dial(port(7))
	if err := <-taken; err != nil {
		t.Error(err)
	}
	h.stop()
}

func TestTakeIsAllOrNothing(t *testing.T) {
	h := newHost(t)
	in := h.dial(port(1))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := h.Take(ctx, 1, 2, 0)
	if !errdefs.IsUnavailable(err) || err.Error() == "" {
		t.Errorf("%v", err)
	}
	ended(t, in)
	h.stop()
}

// What nobody takes is bounded, and ends with the Port.
func TestWaitingIsBounded(t *testing.T) {
	h := newHost(t)
	first := h.dial(port(1))
	second := h.dial(port(1))
	ended(t, first) // the second took its place
	var last net.Conn
	for i := range 256 {
		last = h.dial(port(100 + i))
	}
	ended(t, second)
	nameless := h.dial(&net.UnixAddr{})
	ended(t, nameless)
	h.stop()
	ended(t, last)
	if _, err := h.Take(cancelled(), 355, 0, 0); !errdefs.IsUnavailable(err) {
		t.Errorf("after the end: %v", err)
	}
}

func cancelled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}
