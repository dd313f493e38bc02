package kbs_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/kbs"
	"github.com/coffer-cc/coffer/evidence/secret"
)

func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	tls := evidencetest.NewTLSKBS(t, options())
	plain := evidencetest.NewKBS(t, options())
	tests := []struct {
		name, url, text string
	}{
		{"nobody listens", "http://" + addr, "kbs unreachable: connection refused"},
		{"certificate of nobody", tls.URL, "kbs unreachable: certificate not trusted"},
		{"no TLS", "https" + strings.TrimPrefix(plain.URL, "http"), "kbs unreachable: no TLS"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := newClient(t, kbs.Config{URL: tt.url}).Resource(ctx, name)
			if !errors.Is(err, kbs.ErrUnreachable) || !errdefs.IsUnavailable(err) || !strings.HasSuffix(err.Error(), tt.text) {
				t.Errorf("Resource: %v, want %s", err, tt.text)
			}
		})
	}
}

func TestBrokerComesBack(t *testing.T) {
	k := evidencetest.NewKBS(t, options())
	failures := 2
	k.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if failures == 0 {
			return false
		}
		failures--
		w.WriteHeader(http.StatusBadGateway)
		return true
	})
	wantContents(t, newClient(t, kbs.Config{URL: k.URL}))
}

var legs = []string{"auth", "attest", "resource"}

// TestGarbledReplies answers each request of a handshake in each wrong way. It
// fails with the error that it should, in time, in little memory, and nothing
// of it stays behind.
func TestGarbledReplies(t *testing.T) {
	warm := evidencetest.NewKBS(t, options()) // opens what stays open for good
	wantContents(t, newClient(t, kbs.Config{URL: warm.URL}))
	warm.Close()
	var sent atomic.Int64
	all := append(garbles(&sent), refusals()...)
	own := map[string][]garble{"auth": wrongChallenges(), "attest": wrongTokens(), "resource": wrongEnvelopes()}
	for _, leg := range legs {
		for _, g := range append(slices.Clip(all), own[leg]...) {
			switch {
			case leg == "resource" && g.want == kbs.ErrSession:
				g.tries = 2 // a session that is refused is replaced once
			case leg == "resource" && g.name == "closed at once":
				g.tries++ // the library's own, as the connection was kept from before
			}
			t.Run(leg+"/"+g.name, func(t *testing.T) { g.play(t, leg, &sent) })
		}
	}
}

func (g garble) play(t *testing.T, leg string, sent *atomic.Int64) {
	before := heldNow(t)
	sent.Store(0)
	broker := evidencetest.NewKBS(t, options())
	var asked atomic.Int64
	broker.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, "/kbs/v0/"+leg) {
			return false
		}
		asked.Add(1)
		g.answer(w, r)
		return true
	})
	config := kbs.Config{URL: broker.URL, Timeout: callTime}
	if g.silent {
		config.Timeout = shortTime
	}
	g.call(t, newClient(t, config))
	if n := int(asked.Load()); n != g.tries && !g.silent {
		t.Errorf("asked %d times, want %d", n, g.tries)
	}
	if n := sent.Load(); n > callMemory {
		t.Errorf("the client took %d bytes", n)
	}
	broker.Close()
	before.wantAgain(t)
}

// call asks for the resource and judges the error and what it took.
func (g garble) call(t *testing.T, c *kbs.Client) {
	t.Helper()
	within, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	var (
		then, now runtime.MemStats
		got       secret.Bytes
		err       error
		done      = make(chan struct{})
	)
	runtime.ReadMemStats(&then)
	go func() {
		got, err = c.Resource(within, name)
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(2 * callTime):
		t.Fatal("the call does not end")
	}
	runtime.ReadMemStats(&now)
	if !errors.Is(err, g.want) || !strings.HasSuffix(err.Error(), g.text) {
		t.Errorf("Resource = %d bytes, %v, want %v: %s", len(got), err, g.want, g.text)
	}
	if err != nil && strings.Contains(strings.ToUpper(err.Error()), marker) {
		t.Errorf("the error has the broker's words: %v", err)
	}
	if n := now.TotalAlloc - then.TotalAlloc; n > callMemory {
		t.Errorf("the call took %d bytes of memory", n)
	}
}

func TestCallerGivesUp(t *testing.T) {
	hold := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hold:
		case <-r.Context().Done():
		}
	}))
	defer server.Close()
	defer close(hold)
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if _, err := newClient(t, kbs.Config{URL: server.URL, Timeout: time.Second}).Resource(short, name); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Resource: %v", err)
	}
}
