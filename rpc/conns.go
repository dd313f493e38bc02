package rpc

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
)

// conns keeps the connections of a listener, because ttRPC has no end that fits.
// Its Shutdown takes a connection that is at its first call for an idle one and
// would close it before the reply; its Close leaves those open that have a call
// in flight.
type conns struct {
	net.Listener
	limits limits

	mu     sync.Mutex // guards what follows; taken after guard.mu
	open   map[*kept]struct{}
	closed bool
	empty  chan struct{} // closed while open has none
	load   load          // of all connections
}

func keepConns(l net.Listener, lim limits) *conns {
	empty := make(chan struct{})
	close(empty)
	return &conns{Listener: l, limits: lim, open: make(map[*kept]struct{}), empty: empty}
}

// Accept closes connections beyond the limit and goes on.
func (c *conns) Accept() (net.Conn, error) {
	for {
		conn, err := c.Listener.Accept()
		if err != nil {
			return nil, err // ttRPC looks for temporary ones, so the error stays as it is
		}
		k, err := c.keep(conn)
		if err != nil {
			return nil, err
		}
		if k != nil {
			return newGuard(k, c.limits), nil
		}
		slog.Warn("connection refused: too many are open", "peer", conn.RemoteAddr().String(), "limit", c.limits.conns)
		conn.Close()
	}
}

// keep returns nil for a connection that is one too many.
func (c *conns) keep(conn net.Conn) (*kept, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errors.Join(net.ErrClosed, conn.Close())
	}
	if len(c.open) >= c.limits.conns {
		return nil, nil
	}
	if len(c.open) == 0 {
		c.empty = make(chan struct{})
	}
	k := &kept{Conn: conn, by: c}
	c.open[k] = struct{}{}
	return k, nil
}

// gone is closed when no connection is open.
func (c *conns) gone() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.empty
}

// closeAll cuts all connections, whatever is in flight, and lets none in.
func (c *conns) closeAll() {
	_ = c.Listener.Close() // as a rule it is closed already
	c.mu.Lock()
	c.closed = true
	var all []*kept
	for k := range c.open {
		all = append(all, k)
	}
	c.mu.Unlock()
	for _, k := range all {
		k.Close()
	}
}

func (c *conns) forget(k *kept) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, there := c.open[k]; !there {
		return
	}
	delete(c.open, k)
	if len(c.open) == 0 {
		close(c.empty)
	}
}

// enter counts a call in, unless all connections together have too many.
func (c *conns) enter(bytes int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.load.add(1, bytes); c.load.beyond(c.limits.all) {
		c.load.add(-1, -bytes)
		return fmt.Errorf("%d calls of %d bytes wait for an answer on all connections", c.load.calls, c.load.bytes)
	}
	return nil
}

func (c *conns) leave(calls, bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.load.add(-calls, -bytes)
}

type kept struct {
	net.Conn
	by *conns
}

func (k *kept) Close() error {
	defer k.by.forget(k)
	return k.Conn.Close()
}
