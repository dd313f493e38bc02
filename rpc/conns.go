package rpc

import (
	"errors"
	"io"
	"net"
	"sync"
)

// conns keeps the connections of a listener, because ttRPC has no end that fits.
// Its Shutdown takes a connection that is at its first call for an idle one and
// would close it before the reply; its Close leaves those open that have a call
// in flight.
type conns struct {
	net.Listener

	mu     sync.Mutex // guards what follows
	open   map[*kept]struct{}
	closed bool
	empty  chan struct{} // closed while open has none
}

func keepConns(l net.Listener) *conns {
	empty := make(chan struct{})
	close(empty)
	return &conns{Listener: l, open: make(map[*kept]struct{}), empty: empty}
}

func (c *conns) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err // ttRPC looks for temporary ones, so the error stays as it is
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errors.Join(net.ErrClosed, conn.Close())
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

type kept struct {
	net.Conn
	by *conns
}

// Read says that the peer hung up when it was this side: ttRPC goes on writing
// replies after any other error.
func (k *kept) Read(p []byte) (int, error) {
	n, err := k.Conn.Read(p)
	if errors.Is(err, net.ErrClosed) {
		err = io.EOF
	}
	return n, err
}

func (k *kept) Close() error {
	defer k.by.forget(k)
	return k.Conn.Close()
}
