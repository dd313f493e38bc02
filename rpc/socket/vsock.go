package socket

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/mdlayher/vsock"
)

// maxWrite is the longest piece handed to a vsock at once. Guest kernels from
// 6.12 send more than 32 KiB as several descriptors, which the vhost-user
// backend vhost-device-vsock 0.3 drops; the call that waits for the answer
// then hangs for ever. Splitting costs no throughput. It can go when no such
// backend is in use.
const maxWrite = 28 << 10

func listenVsock(a address, o options) (net.Listener, error) {
	l, err := vsock.ListenContextID(a.cid, a.port, nil)
	if err != nil {
		return nil, err
	}
	return &hostListener{Listener: l, loopback: o.loopback}, nil
}

func dialVsock(ctx context.Context, a address) (net.Conn, error) {
	if a.cid == anyCID {
		return nil, fmt.Errorf("CID -1 can only be listened on: %w", errdefs.ErrInvalidArgument)
	}
	c, err := vsock.DialContext(ctx, a.cid, a.port, nil)
	if err != nil {
		return nil, err
	}
	return splitConn{c}, nil
}

// hostListener hands out connections from the host alone. AF_VSOCK knows no
// network namespaces: every container of the guest can connect to the agent's
// port by the loopback CID or the guest's own, and must not get an answer.
type hostListener struct {
	net.Listener
	loopback bool
	refused  sync.Once // logs the first refusal; a container could fill the log
}

func (l *hostListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.admits(c.RemoteAddr()) {
			return splitConn{c}, nil
		}
		l.refused.Do(func() {
			slog.Warn("vsock peer refused, further ones silently", "peer", c.RemoteAddr().String())
		})
		c.Close()
	}
}

// admits judges a peer. One that dials the loopback CID shows up with it; one
// that dials the guest's own CID shows up with that, and is never admitted.
func (l *hostListener) admits(peer net.Addr) bool {
	a, ok := peer.(*vsock.Addr)
	return ok && (a.ContextID == vsock.Host || l.loopback && a.ContextID == vsock.Local)
}

// Port is that of one end of a vsock connection.
func Port(end net.Addr) (port uint32, ok bool) {
	a, ok := end.(*vsock.Addr)
	if !ok {
		return 0, false
	}
	return a.Port, true
}

// splitConn writes in pieces of at most maxWrite.
type splitConn struct{ net.Conn }

func (c splitConn) Write(b []byte) (n int, err error) {
	for {
		piece := b[n:]
		if len(piece) > maxWrite {
			piece = piece[:maxWrite]
		}
		w, err := c.Conn.Write(piece)
		n += w
		if err != nil || n == len(b) {
			return n, err
		}
	}
}
