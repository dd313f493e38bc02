package kbs_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/kbs"
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

func TestHostileReplies(t *testing.T) {
	tests := []struct {
		name   string
		answer http.HandlerFunc
		want   error
		text   string
	}{
		{"not json", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }, kbs.ErrReply, "challenge"},
		{"no session", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"nonce":"a"}`) }, kbs.ErrReply, "without a session"},
		{"endless session", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Set-Cookie", "kbs-session-id="+strings.Repeat("a", 5000))
			fmt.Fprint(w, `{"nonce":"a"}`)
		}, kbs.ErrReply, "without a session"},
		{"endless body", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Repeat(" ", 8<<20)) }, kbs.ErrReply, "too large"},
		{"redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) }, kbs.ErrFault, "status 302"},
		{"trickle", func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, kbs.ErrUnreachable, "timed out"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := httptest.NewServer(tt.answer)
			defer server.Close()
			c := newClient(t, kbs.Config{URL: server.URL, Timeout: 200 * time.Millisecond})
			if _, err := c.Resource(ctx, name); !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("Resource: %v, want %v: %s", err, tt.want, tt.text)
			}
		})
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
