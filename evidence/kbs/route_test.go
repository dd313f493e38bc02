package kbs_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/kbs"
)

// newProxy is an HTTP proxy that tunnels every CONNECT to target, whatever name
// was asked for, and counts.
func newProxy(t *testing.T, target string) (url string, tunnels *atomic.Int64) {
	t.Helper()
	tunnels = new(atomic.Int64)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			http.Error(w, "only tunnels", http.StatusMethodNotAllowed)
			return
		}
		tunnels.Add(1)
		there, err := net.Dial("tcp", target)
		if err != nil {
			http.Error(w, "no way", http.StatusBadGateway)
			return
		}
		here, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			there.Close()
			return
		}
		_, _ = io.WriteString(here, "HTTP/1.1 200 OK\r\n\r\n")
		go func() {
			_, _ = io.Copy(there, here)
			there.Close()
		}()
		_, _ = io.Copy(here, there)
		here.Close()
	}))
	t.Cleanup(s.Close)
	return s.URL, tunnels
}

func TestProxy(t *testing.T) {
	k := evidencetest.NewTLSKBS(t, options())
	proxy, tunnels := newProxy(t, strings.TrimPrefix(k.URL, "https://"))
	far := kbs.Config{URL: "https://example.com", Cert: k.Cert, Proxy: kbs.Proxy{HTTPS: proxy}}
	wantContents(t, newClient(t, far)) // the test certificate has that name
	if tunnels.Load() == 0 {
		t.Error("nothing went through the proxy")
	}
	before := tunnels.Load()
	for _, direct := range []string{"example.com", "*", ".com"} {
		far.Proxy.NoProxy = direct
		far.Timeout = 1 // there is no way but the proxy, and none is waited for
		if _, err := newClient(t, far).Resource(ctx, name); !errors.Is(err, kbs.ErrUnreachable) {
			t.Errorf("no_proxy = %s: %v, want ErrUnreachable", direct, err)
		}
	}
	if n := tunnels.Load(); n != before {
		t.Errorf("%d tunnels against no_proxy", n-before)
	}
}
