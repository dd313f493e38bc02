// Package socket opens the byte streams that the protocol runs over, named by
// one address string:
//
//	vsock://CID:PORT    VM sockets; a CID of -1 listens on every one the guest has
//	unix://PATH         a socket file
//	unix://@NAME        an abstract socket
//	hvsock://PATH:PORT  a guest's port behind the hypervisor's socket file; dial only
//
// github.com/mdlayher/vsock gives AF_VSOCK sockets the runtime's poller, which
// the standard library does not.
package socket

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// Option changes how Listen treats peers.
type Option func(*options)

type options struct {
	loopback bool
}

// WithLoopback also admits vsock peers inside the guest itself. Tests that run
// client and agent in one machine need it. An agent with workloads must not
// have it: any container may open a vsock, and would then reach the agent.
func WithLoopback() Option { return func(o *options) { o.loopback = true } }

// Listen opens addr for incoming connections. A vsock listener hands out only
// connections from the host. A socket file is made for the owner alone; a file
// that a dead process left behind is replaced, one in use is not.
func Listen(ctx context.Context, addr string, opts ...Option) (net.Listener, error) {
	a, err := parse(addr)
	if err != nil {
		return nil, err
	}
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	var l net.Listener
	switch a.scheme {
	case "vsock":
		l, err = listenVsock(a, o)
	case "unix":
		l, err = listenUnix(ctx, a.path)
	default:
		return nil, fmt.Errorf("listen on %s: scheme can only be dialled: %w", addr, errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	return l, nil
}

// Dial connects to addr. The context bounds the connecting, handshake
// included, not the connection.
func Dial(ctx context.Context, addr string) (net.Conn, error) {
	a, err := parse(addr)
	if err != nil {
		return nil, err
	}
	var c net.Conn
	switch a.scheme {
	case "vsock":
		c, err = dialVsock(ctx, a)
	case "unix":
		c, err = new(net.Dialer).DialContext(ctx, "unix", a.path)
	case "hvsock":
		c, err = dialHybrid(ctx, a)
	}
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	return c, nil
}

// address is one parsed address string; which fields count depends on scheme.
type address struct {
	scheme    string
	path      string
	cid, port uint32
}

const anyCID = ^uint32(0) // VMADDR_CID_ANY

func parse(s string) (a address, err error) {
	bad := func(why string) (address, error) {
		return address{}, fmt.Errorf("address %.128q: %s: %w", s, why, errdefs.ErrInvalidArgument)
	}
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		return bad("no scheme")
	}
	a = address{scheme: scheme, path: rest}
	if scheme == "unix" {
		if rest == "" || rest == "@" || strings.IndexByte(rest, 0) >= 0 {
			return bad("no usable path")
		}
		return a, nil
	}
	colon := strings.LastIndexByte(rest, ':')
	if colon <= 0 {
		return bad("no port")
	}
	port, err := strconv.ParseUint(rest[colon+1:], 10, 32)
	if err != nil || port == 0 || uint32(port) == ^uint32(0) {
		return bad("no valid port")
	}
	a.path, a.port = rest[:colon], uint32(port)
	switch scheme {
	case "hvsock":
		return a, nil
	case "vsock":
		if a.path == "-1" {
			a.cid = anyCID
			return a, nil
		}
		cid, err := strconv.ParseUint(a.path, 10, 32)
		if err != nil || uint32(cid) == anyCID {
			return bad("no valid CID")
		}
		a.cid = uint32(cid)
		return a, nil
	}
	return bad("unknown scheme")
}
