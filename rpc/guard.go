package rpc

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"sync"
	"time"
)

// limits bound what peers can make the agent hold. A peer that goes beyond is
// cut off.
type limits struct {
	conns     int           // open at once
	frameTime time.Duration // from the first byte of a frame to its last
	each, all load          // calls that have no answer yet, of one connection and of all
}

// load is a number of calls and the bytes of their requests.
type load struct{ calls, bytes int }

func (l load) beyond(max load) bool { return l.calls > max.calls || l.bytes > max.bytes }

func (l *load) add(calls, bytes int) { l.calls, l.bytes = l.calls+calls, l.bytes+bytes }

// usualLimits leave room for the gate to refuse calls with an error first: only
// who does not read the answers gets here.
func usualLimits() limits {
	return limits{
		conns: 64, frameTime: 30 * time.Second,
		each: load{calls: maxCalls + 1024, bytes: 64 << 20},
		all:  load{calls: 2 * maxCalls, bytes: 128 << 20},
	}
}

// guard is a connection as the library sees it. It lets only frames through that
// the library bears, and gives each call a stream id of its own: the library
// refuses ids that do not grow, but the tasks of the Rust shim draw theirs first
// and queue up for the connection afterwards. It also counts calls that wait
// for an answer, which start with the first byte of their frame.
//
// Reads and writes may run at the same time, several of each may not.
type guard struct {
	*kept
	limits limits
	in     *bufio.Reader
	out    *bufio.Writer

	// of the frame that is being read
	head header
	rest []byte // of head, not handed out yet
	left int    // of the payload
	slow bool   // a deadline is set

	// of the frame that is being written
	outHead header
	outHave int // bytes of outHead
	outLeft int

	mu     sync.Mutex // guards what follows
	lastID uint32
	calls  map[uint32]call // by the library's stream id
	taken  map[uint32]bool // stream ids of the peer
	load   load
	closed bool
}

// call is one that has no answer yet.
type call struct {
	peerID uint32
	bytes  int
}

// outSize holds the answer to a usual read, so that it is written at once.
const outSize = 33 << 10

func newGuard(k *kept, l limits) *guard {
	return &guard{
		kept: k, limits: l, in: bufio.NewReader(k.Conn), out: bufio.NewWriterSize(k.Conn, outSize),
		calls: make(map[uint32]call), taken: make(map[uint32]bool),
	}
}

// Read hands out admitted frames. Whatever ends the connection, it says that the
// peer hung up: after any other error the library goes on writing replies, and
// this closes the connection below it, should the peer not read them.
func (g *guard) Read(p []byte) (int, error) {
	n, err := g.read(p)
	if err == nil {
		return n, nil
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		slog.Warn("connection ended", "peer", g.RemoteAddr().String(), "why", err.Error())
	}
	g.Close()
	return 0, io.EOF
}

func (g *guard) read(p []byte) (int, error) {
	if len(g.rest) == 0 && g.left == 0 {
		if err := g.nextFrame(); err != nil {
			return 0, err
		}
	}
	if len(g.rest) > 0 {
		n := copy(p, g.rest)
		g.rest = g.rest[n:]
		return n, nil
	}
	n, err := g.in.Read(p[:min(len(p), g.left)])
	g.left -= n
	if g.left == 0 && err == nil {
		err = g.hurry(false)
	}
	return n, err
}

// nextFrame reads a header and admits it.
func (g *guard) nextFrame() error {
	if _, err := g.in.Peek(1); err != nil {
		return err // between frames a peer may be silent as long as it likes
	}
	if g.in.Buffered() < headerSize {
		if err := g.hurry(true); err != nil {
			return err
		}
	}
	if _, err := io.ReadFull(g.in, g.head[:]); err != nil {
		return fmt.Errorf("half a frame: %w", err)
	}
	if err := g.head.check(); err != nil {
		return err
	}
	if err := g.enter(); err != nil {
		return err
	}
	g.rest, g.left = g.head[:], int(g.head.length())
	return g.hurry(g.left > g.in.Buffered())
}

// hurry bounds the time until the frame is complete, unless that runs already,
// or lifts the bound.
func (g *guard) hurry(on bool) error {
	if on == g.slow {
		return nil
	}
	g.slow = on
	var end time.Time
	if on {
		end = time.Now().Add(g.limits.frameTime)
	}
	return g.SetReadDeadline(end)
}

// enter counts the call of head in and gives it its stream id.
func (g *guard) enter() error {
	c := call{peerID: g.head.stream()}
	if n := g.head.length(); n <= maxFrame {
		c.bytes = int(n) // a longer one is skipped and takes no memory
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return net.ErrClosed
	}
	if g.taken[c.peerID] {
		return fmt.Errorf("stream id %d is in use", c.peerID)
	}
	if g.lastID > math.MaxUint32-2 {
		return errors.New("stream ids are used up")
	}
	if g.load.add(1, c.bytes); g.load.beyond(g.limits.each) {
		g.load.add(-1, -c.bytes)
		return fmt.Errorf("%d calls of %d bytes wait for an answer", g.load.calls, g.load.bytes)
	}
	if err := g.by.enter(c.bytes); err != nil {
		g.load.add(-1, -c.bytes)
		return err
	}
	if g.lastID == 0 {
		g.lastID = 1
	} else {
		g.lastID += 2
	}
	g.calls[g.lastID], g.taken[c.peerID] = c, true
	g.head.setStream(g.lastID)
	return nil
}

// answered translates the header of an answer and counts its call out.
func (g *guard) answered() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	id := g.outHead.stream()
	c, ok := g.calls[id]
	if !ok {
		return fmt.Errorf("answer to no call: stream id %d", id)
	}
	delete(g.calls, id)
	delete(g.taken, c.peerID)
	g.load.add(-1, -c.bytes)
	g.by.leave(1, c.bytes)
	g.outHead.setStream(c.peerID)
	return nil
}

// Write passes answers on, each at once as far as it fits into the buffer.
func (g *guard) Write(p []byte) (int, error) {
	written := 0
	for written < len(p) {
		n, err := g.writeSome(p[written:])
		written += n
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

func (g *guard) writeSome(p []byte) (n int, err error) {
	if g.outLeft > 0 {
		n, err = g.out.Write(p[:min(len(p), g.outLeft)])
		g.outLeft -= n
	} else {
		n = copy(g.outHead[g.outHave:], p)
		if g.outHave += n; g.outHave < headerSize {
			return n, nil
		}
		g.outHave, g.outLeft = 0, int(g.outHead.length())
		if err = g.answered(); err == nil {
			_, err = g.out.Write(g.outHead[:])
		}
	}
	if err == nil && g.outLeft == 0 && g.outHave == 0 {
		err = g.out.Flush()
	}
	return n, err
}

// Close gives back what the calls without an answer took.
func (g *guard) Close() error {
	g.mu.Lock()
	l := g.load
	g.load, g.closed = load{}, true
	clear(g.calls)
	g.mu.Unlock()
	g.by.leave(l.calls, l.bytes)
	return g.kept.Close()
}
