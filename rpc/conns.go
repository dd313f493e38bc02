package rpc

import (
	"net"
	"sync"
)

// conns counts the connections of a listener, because ttRPC takes a connection
// that is at its first call for an idle one and would close it before the reply.
type conns struct {
	net.Listener

	mu    sync.Mutex // guards open and empty
	open  int
	empty chan struct{} // closed while open is 0
}

func countConns(l net.Listener) *conns {
	empty := make(chan struct{})
	close(empty)
	return &conns{Listener: l, empty: empty}
}

func (c *conns) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err // ttRPC looks for temporary ones, so the error stays as it is
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open++; c.open == 1 {
		c.empty = make(chan struct{})
	}
	return &counted{Conn: conn, from: c}, nil
}

// gone is closed when no connection is open.
func (c *conns) gone() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.empty
}

type counted struct {
	net.Conn
	from *conns
	once sync.Once
}

func (c *counted) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.from.mu.Lock()
		defer c.from.mu.Unlock()
		if c.from.open--; c.from.open == 0 {
			close(c.from.empty)
		}
	})
	return err
}
