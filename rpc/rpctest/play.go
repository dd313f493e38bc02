package rpctest

import (
	"context"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

// unit is what is sent in one go: a call, or the reads of a stream. How a
// stream falls into reads is chance, so a unit repeats the one read that all of
// them are until the end of the stream, as shims do.
type unit struct {
	*Call
	end      float64
	after    []*unit
	answered chan struct{}
	err      error
	got      proto.Message
	data     []byte
}

func isRead(c *Call) bool { return c.Method == "ReadStdout" || c.Method == "ReadStderr" }

// units orders a life as the shim did: a call is sent when all those that had
// ended before its start have been answered.
func (l *Life) units() []*unit {
	type stream struct {
		processKey
		method string
	}
	reads := map[stream]*unit{}
	var out []*unit
	for _, c := range l.Calls {
		s := stream{keyOf(c.Request), c.Method}
		if u := reads[s]; u != nil && isRead(c) {
			u.end = max(u.end, c.End)
			continue
		}
		u := &unit{Call: c, end: c.End, answered: make(chan struct{})}
		if isRead(c) {
			reads[s] = u
		}
		out = append(out, u)
	}
	for _, u := range out {
		for _, v := range out {
			forever := v.Method == "GetOOMEvent" || isRead(v.Call) && afterPolicy(l, v)
			if v != u && v.end >= 0 && v.end <= u.Start && !forever {
				u.after = append(u.after, v)
			}
		}
	}
	return out
}

func (u *unit) run(client *ttrpc.Client) {
	defer close(u.answered)
	for _, v := range u.after {
		<-v.answered
	}
	for {
		ctx, cancel := context.Background(), context.CancelFunc(func() {})
		if u.Timeout > 0 {
			ctx, cancel = context.WithTimeout(ctx, time.Duration(u.Timeout*float64(time.Second)))
		}
		u.got = u.reply.New().Interface()
		u.err = client.Call(ctx, u.Service, u.Method, u.Request, u.got)
		cancel()
		r, ok := u.got.(*agentpb.ReadStreamResponse)
		if !ok || u.err != nil || len(r.GetData()) == 0 {
			return
		}
		u.data = append(u.data, r.GetData()...)
	}
}

// Play is a life that is being replayed.
type Play struct {
	life  *Life
	units []*unit
}

// Start begins to send what the shim sent. The calls end with the client.
func (l *Life) Start(client *ttrpc.Client) *Play {
	p := &Play{life: l, units: l.units()}
	for _, u := range p.units {
		go u.run(client)
	}
	return p
}

// Wait waits for the answer to the last call, and names those without one when
// it does not come.
func (p *Play) Wait(t testing.TB, limit time.Duration) {
	t.Helper()
	last := p.units[len(p.units)-1]
	select {
	case <-last.answered:
	case <-time.After(limit):
		for _, u := range p.units {
			select {
			case <-u.answered:
			default:
				t.Errorf("not answered: %d %s", u.Seq, u.Method)
			}
		}
	}
}

// Destroyed reports whether the last call, which is the end of the sandbox, had its
// way. After Judge.
func (p *Play) Destroyed() bool { return p.units[len(p.units)-1].err == nil }

// Judge compares all answers with what they should be. The client must be
// closed before.
func (p *Play) Judge(t testing.TB) {
	t.Helper()
	for _, u := range p.units {
		<-u.answered
		p.life.judge(t, u)
	}
}
