package kbs

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/coffer-cc/coffer/evidence"
)

const (
	// defaultLifetime is what brokers give sessions and tokens by default.
	defaultLifetime = 5 * time.Minute
	// maxLifetime bounds how long one key is used whatever the broker says.
	maxLifetime = time.Hour
	// handshakeTimeout bounds one shared handshake with all its attempts.
	handshakeTimeout = 3 * time.Minute
)

// session is the outcome of one handshake: one key, one cookie. The two belong
// together, as the broker wraps resources for the key of the session for ever.
type session struct {
	key     *teeKey
	cookie  string
	token   string    // shown to a broker that knows no such cookie
	epoch   uint64    // before the evidence was collected
	renewAt time.Time // a hint; the broker may forget the session earlier
}

// flight is a handshake under way.
type flight struct {
	done    chan struct{}
	session *session // set before done is closed
	err     error    // likewise

	// For callers that leave before, guarded by the client's mutex.
	waits evidence.Code // what it would be a fault of
	last  error         // of the attempt before this one
}

// session returns a session of this epoch, or waits for the one handshake that
// makes it. A caller that leaves early does not end the handshake, since
// others may wait for it; handshakeTimeout does.
func (c *Client) session(ctx context.Context) (*session, error) {
	for epoch := c.epoch(); ; {
		f, s := c.board(ctx, epoch)
		if s != nil {
			return s, nil
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, c.leave(ctx, f)
		}
		// A handshake that was under way when the epoch began proves what the
		// guest was before, so another one follows.
		if f.err != nil || f.session.epoch >= epoch {
			return f.session, f.err
		}
	}
}

// leave says what a caller has waited for in vain: the last attempt's fault
// tells more than that the time is over.
func (c *Client) leave(ctx context.Context, f *flight) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.last != nil {
		return fmt.Errorf("%w: %w", f.last, ctx.Err())
	}
	return f.waits.Expired(ctx)
}

// waitsFor notes whose fault it is if the handshake under way takes too long.
func (c *Client) waitsFor(code evidence.Code) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flight != nil {
		c.flight.waits = code
	}
}

// board returns the session at hand if it is good for the epoch, else the
// handshake under way, or a new one.
func (c *Client) board(ctx context.Context, epoch uint64) (*flight, *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.current; s != nil && s.epoch >= epoch && time.Now().Before(s.renewAt) {
		return nil, s
	}
	if c.flight == nil {
		c.flight = &flight{done: make(chan struct{}), waits: evidence.TransportTimeout}
		go c.fly(context.WithoutCancel(ctx), c.flight)
	}
	return c.flight, nil
}

// fly performs the handshake of one flight and publishes its outcome.
func (c *Client) fly(ctx context.Context, f *flight) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	start := time.Now()
	f.err = c.retry(ctx, func() (err error) {
		f.session, err = c.handshake(ctx)
		c.mu.Lock()
		f.last = err
		c.mu.Unlock()
		return err
	})
	if f.err == nil {
		c.observe(PhaseAttest, start)
		slog.InfoContext(ctx, "attested", "tee", c.config.Collector.Kind(), "took", time.Since(start))
	}
	c.mu.Lock()
	c.current, c.flight = f.session, nil
	c.mu.Unlock()
	close(f.done)
}

// drop forgets a session that the broker rejects, unless another caller has
// replaced it already.
func (c *Client) drop(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current == s {
		c.current = nil
	}
}

// renewal turns a lifetime into the moment from which on a new session is made
// in advance: after 70 to 85 of its 100 parts, so that guests which started
// together do not come back together. A broker that names none, or nonsense,
// gets the default.
func renewal(lifetime time.Duration) time.Time {
	if lifetime <= 0 {
		lifetime = defaultLifetime
	}
	part := min(lifetime, maxLifetime) / 100
	return time.Now().Add(70*part + rand.N(15*part+1))
}

// shortest returns the shortest of the lifetimes that are known, 0 if none is.
func shortest(lifetimes ...time.Duration) (least time.Duration) {
	for _, l := range lifetimes {
		if l > 0 && (least == 0 || l < least) {
			least = l
		}
	}
	return least
}
