package rpc

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

// peer is a host that writes frames by hand.
type peer struct {
	net.Conn
	t *testing.T
}

func (f *fixture) peer(t *testing.T) peer {
	t.Helper()
	conn, err := net.Dial("unix", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return peer{conn, t}
}

func frame(stream uint32, kind, flags byte, payload []byte) []byte {
	b := make([]byte, headerSize, headerSize+len(payload))
	binary.BigEndian.PutUint32(b, uint32(len(payload)))
	binary.BigEndian.PutUint32(b[4:], stream)
	b[8], b[9] = kind, flags
	return append(b, payload...)
}

// ask is a request for a method without fields.
func ask(t testing.TB, service, method string) []byte {
	t.Helper()
	b, err := proto.Marshal(&ttrpc.Request{Service: service, Method: method})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (p peer) send(b []byte) {
	p.t.Helper()
	if _, err := p.Write(b); err != nil {
		p.t.Fatal(err)
	}
}

// wantCut waits for the end of the connection, after any answers.
func (p peer) wantCut() {
	p.t.Helper()
	p.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.Copy(io.Discard, p); errors.Is(err, os.ErrDeadlineExceeded) {
		p.t.Error("the connection is still open")
	}
}

// wantAnswer reads an answer without an error to the call on stream.
func (p peer) wantAnswer(stream uint32) {
	p.t.Helper()
	p.SetReadDeadline(time.Now().Add(5 * time.Second))
	if r := readReply(p.t, p, byte(stream)); r.GetStatus().GetCode() != 0 {
		p.t.Errorf("stream %d: %v", stream, r.GetStatus())
	}
}

// None of these may end the process or touch another connection. With a call in
// flight the data frame is the one that the library crashes over.
func TestMalformedFrames(t *testing.T) {
	f := newFixture(t, nil)
	poll, check := ask(t, "grpc.AgentService", "GetOOMEvent"), ask(t, "grpc.Health", "Check")
	other := f.peer(t)
	other.send(frame(1, frameRequest, 0, poll))
	eventually(t, "the other's call is in flight", func() bool { return f.InFlight() == 1 })
	for _, c := range []struct {
		name  string
		bytes []byte
	}{
		{"data on a unary call", frame(1, 3, 0, check)},
		{"end of data on a unary call", frame(1, 3, 5, nil)},
		{"data on no call", frame(9, 3, 0, nil)},
		{"response", frame(3, 2, 0, check)},
		{"unknown type", frame(3, 0, 0, check)},
		{"highest type", frame(3, 255, 0, check)},
		{"stream that stays open", frame(3, frameRequest, 2, check)},
		{"no data", frame(3, frameRequest, 4, check)},
		{"unknown flags", frame(3, frameRequest, 0x80, check)},
		{"even stream id", frame(2, frameRequest, 0, check)},
		{"stream id zero", frame(0, frameRequest, 0, check)},
		{"stream id in use", frame(1, frameRequest, 0, check)},
		{"4 GiB", []byte{255, 255, 255, 255, 0, 0, 0, 3, 1, 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := f.peer(t)
			p.send(frame(1, frameRequest, 0, poll))
			eventually(t, "a call is in flight", func() bool { return f.InFlight() == 2 })
			p.send(c.bytes)
			p.wantCut()
			eventually(t, "its call has ended", func() bool { return f.InFlight() == 1 })
		})
	}
	other.send(frame(3, frameRequest, flagRemoteClosed, check))
	other.wantAnswer(3)
}

// What is no frame error is answered, and the connection goes on.
func TestUndecodableRequests(t *testing.T) {
	p := newFixture(t, nil).peer(t)
	for i, payload := range [][]byte{nil, []byte("\xff\xff\xff"), ask(t, "nobody", "knows"), ask(t, "grpc.Health", "Nothing")} {
		stream := uint32(2*i + 1)
		p.send(frame(stream, frameRequest, 0, payload))
		p.SetReadDeadline(time.Now().Add(5 * time.Second))
		if r := readReply(t, p, byte(stream)); r.GetStatus().GetCode() == 0 {
			t.Errorf("request %d succeeded", i)
		}
	}
	p.send(frame(99, frameRequest, 0, ask(t, "grpc.Health", "Check")))
	p.wantAnswer(99)
}

// The Rust shim's tasks draw their stream ids before they queue up, so ids come
// out of order. A call that was answered frees its id.
func TestStreamIDsOutOfOrder(t *testing.T) {
	p := newFixture(t, nil).peer(t)
	check := ask(t, "grpc.Health", "Check")
	for _, id := range []uint32{7, 3, 5, 1, 3} {
		p.send(frame(id, frameRequest, 0, check))
		p.wantAnswer(id)
	}
}

// A frame that does not end takes its connection along. A silent connection,
// older than that, is as good as ever.
func TestSlowFrames(t *testing.T) {
	l := usualLimits()
	l.frameTime = 20 * time.Millisecond
	f := newLimitedFixture(t, l, nil)
	check := frame(1, frameRequest, 0, ask(t, "grpc.Health", "Check"))
	silent := f.peer(t)
	for _, n := range []int{1, headerSize - 1, headerSize, len(check) - 1} {
		p := f.peer(t)
		p.send(check[:n])
		p.wantCut()
	}
	silent.send(check)
	silent.wantAnswer(1)
}

func TestTooManyConnections(t *testing.T) {
	l := usualLimits()
	l.conns = 2
	f := newLimitedFixture(t, l, nil)
	check := frame(1, frameRequest, 0, ask(t, "grpc.Health", "Check"))
	one, two := f.peer(t), f.peer(t)
	for _, p := range []peer{one, two} {
		p.send(check)
		p.wantAnswer(1)
	}
	f.peer(t).wantCut()
	two.Close()
	eventually(t, "there is room again", func() bool {
		p := f.peer(t)
		if _, err := p.Write(check); err != nil {
			return false
		}
		p.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, err := io.ReadFull(p, make([]byte, headerSize))
		return err == nil
	})
}

// Calls in flight are bounded, whether they wait for something or for the peer
// to read the answers.
func TestTooManyCallsWithoutAnswer(t *testing.T) {
	l := usualLimits()
	l.each.calls = 50
	f := newLimitedFixture(t, l, nil)
	for _, payload := range [][]byte{ask(t, "grpc.AgentService", "GetOOMEvent"), ask(t, "grpc.Health", "Check")} {
		p := f.peer(t)
		cut := make(chan struct{})
		go func() {
			defer close(cut)
			for id := uint32(1); ; id += 2 {
				if _, err := p.Write(frame(id, frameRequest, 0, payload)); err != nil {
					return
				}
			}
		}()
		select {
		case <-cut:
		case <-time.After(20 * time.Second):
			t.Fatal("the peer is not cut off")
		}
		eventually(t, "its calls have ended", func() bool { return f.InFlight() == 0 })
	}
	if _, err := agentpb.NewHealthClient(f.dial(t)).Check(t.Context(), &agentpb.CheckRequest{}); err != nil {
		t.Error(err)
	}
}

// The bytes count from the header on, because the library makes room then.
func TestTooManyBytes(t *testing.T) {
	for name, set := range map[string]func(*limits){
		"of one":   func(l *limits) { l.each.bytes = 3 << 20 },
		"of all":   func(l *limits) { l.all.bytes = 3 << 20 },
		"in calls": func(l *limits) { l.all.calls = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			l := usualLimits()
			set(&l)
			f := newLimitedFixture(t, l, nil)
			big := frame(1, frameRequest, 0, nil)
			binary.BigEndian.PutUint32(big, 4<<20)
			p := f.peer(t)
			p.send(big)
			p.wantCut()
			eventually(t, "nothing is counted", func() bool {
				f.mu.Lock()
				c := f.conns
				f.mu.Unlock()
				c.mu.Lock()
				defer c.mu.Unlock()
				return c.load == load{} && len(c.open) == 0
			})
		})
	}
}

// FuzzFrames feeds a whole server: a panic in one of the library's goroutines
// ends the process.
func FuzzFrames(f *testing.F) {
	check, poll := ask(f, "grpc.Health", "Check"), ask(f, "grpc.AgentService", "GetOOMEvent")
	f.Add(frame(1, frameRequest, 0, check))
	f.Add(append(frame(1, frameRequest, 0, check), frame(1, 3, 0, check)...))
	f.Add(append(frame(3, frameRequest, 1, poll), frame(1, frameRequest, 0, check)...))
	f.Add(frame(1, frameRequest, 0, []byte("\xff\xff")))
	f.Add([]byte{0, 255, 255, 255, 0, 0, 0, 3, 1, 0})
	s, err := New(Deps{Policy: &rules{denied: map[string]bool{"GetOOMEventRequest": true}}})
	if err != nil {
		f.Fatal(err)
	}
	s.Open()
	l := newPipes()
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	f.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil {
			f.Error(err)
		}
	})
	f.Fuzz(func(t *testing.T, data []byte) {
		here, there := net.Pipe()
		l.conns <- there
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			io.Copy(io.Discard, here) //nolint:errcheck // the end is what counts
		}()
		here.Write(data) //nolint:errcheck // it is cut off in the middle
		here.Close()
		<-ended
	})
}

// pipes is a listener for connections that are handed to it.
type pipes struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{} }
