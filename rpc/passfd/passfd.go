// Package passfd takes the connections over which the Rust shim moves the
// streams of processes past the API:
//
//	shim ── "passfd" + a pipe's descriptor ──▶ hypervisor ── vsock ──▶ this port
//	shim ◀─ "OK 4711" ───────────────────────┘
//	shim ── CreateContainer(stdout_port = 4711) ──▶ agent takes the connection
//	                                                that came from port 4711
//
// Nothing is ever sent that would say what a connection is for, so each is kept
// under its peer's port until a request names it.
package passfd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
)

// The host opens at most three connections per process, right before the
// request that names them.
const (
	maxWaiting = 256             // connections that no request has named
	keepTime   = 2 * time.Minute // after which one that was not named is closed
	takeTime   = 2 * time.Second // for a named connection to arrive
)

// Streams are the connections of one process. Any may be nil.
type Streams struct{ Stdin, Stdout, Stderr net.Conn }

// Close closes all of them.
func (s Streams) Close() {
	for _, c := range []net.Conn{s.Stdin, s.Stdout, s.Stderr} {
		if c != nil {
			c.Close()
		}
	}
}

// Port keeps connections. Make one with New.
type Port struct {
	peer func(net.Addr) (port uint32, ok bool)

	mu      sync.Mutex // guards what follows
	waiting []waiting  // oldest first
	changed chan struct{}
	closed  bool
}

type waiting struct {
	port  uint32
	conn  net.Conn
	since time.Time
}

// New returns a Port that knows a connection's name by peer.
func New(peer func(net.Addr) (port uint32, ok bool)) *Port {
	return &Port{peer: peer, changed: make(chan struct{})}
}

// Run accepts from l until ctx ends, and closes l and what nobody took.
func (p *Port) Run(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer p.close()
	tidy := time.AfterFunc(keepTime, p.expire)
	defer tidy.Stop()
	for {
		conn, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			return nil
		case isTemporary(err):
			slog.WarnContext(ctx, "stream not accepted", "error", err)
			continue
		case err != nil:
			return fmt.Errorf("accept streams: %w", err)
		}
		p.expire()
		p.keep(conn)
		tidy.Reset(keepTime)
	}
}

// isTemporary is true of a lack of descriptors, which passes.
func isTemporary(err error) bool {
	var t interface{ Temporary() bool }
	return errors.As(err, &t) && t.Temporary()
}

// keep files a connection. A second one from a port takes the first one's place,
// and one too many the oldest one's.
func (p *Port) keep(conn net.Conn) {
	port, ok := p.peer(conn.RemoteAddr())
	p.mu.Lock()
	defer p.mu.Unlock()
	if !ok || p.closed {
		conn.Close()
		return
	}
	out := func(w waiting) bool { return w.port == port }
	if i := slices.IndexFunc(p.waiting, out); i >= 0 {
		p.waiting[i].conn.Close()
		p.waiting = slices.Delete(p.waiting, i, i+1)
	} else if len(p.waiting) == maxWaiting {
		slog.Warn("too many streams wait for a process, the oldest is closed", "limit", maxWaiting)
		p.waiting[0].conn.Close()
		p.waiting = slices.Delete(p.waiting, 0, 1)
	}
	p.waiting = append(p.waiting, waiting{port, conn, time.Now()})
	close(p.changed)
	p.changed = make(chan struct{})
}

// expire closes what has waited too long.
func (p *Port) expire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting = slices.DeleteFunc(p.waiting, func(w waiting) bool {
		late := time.Since(w.since) >= keepTime
		if late {
			w.conn.Close()
		}
		return late
	})
}

func (p *Port) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, w := range p.waiting {
		w.conn.Close()
	}
	p.waiting = nil
}

// Take returns the connections that came from these ports of the host; 0 is none.
// A connection may be accepted a little later than the request that names it
// arrives, so Take waits, but not for long. It is all or nothing: when one is
// missing the others are closed and the error wraps errdefs.ErrUnavailable.
func (p *Port) Take(ctx context.Context, stdin, stdout, stderr uint32) (Streams, error) {
	ctx, cancel := context.WithTimeout(ctx, takeTime)
	defer cancel()
	var s Streams
	for _, want := range []struct {
		name string
		port uint32
		to   *net.Conn
	}{{"stdin_port", stdin, &s.Stdin}, {"stdout_port", stdout, &s.Stdout}, {"stderr_port", stderr, &s.Stderr}} {
		if want.port == 0 {
			continue
		}
		if *want.to = p.await(ctx, want.port); *want.to == nil {
			s.Close()
			return Streams{}, fmt.Errorf("%s %d: no connection came from there: %w", want.name, want.port, errdefs.ErrUnavailable)
		}
	}
	return s, nil
}

func (p *Port) await(ctx context.Context, port uint32) net.Conn {
	for {
		p.mu.Lock()
		changed := p.changed
		for i, w := range p.waiting {
			if w.port == port {
				p.waiting = slices.Delete(p.waiting, i, i+1)
				p.mu.Unlock()
				return w.conn
			}
		}
		p.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}
