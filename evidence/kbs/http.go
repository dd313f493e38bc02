package kbs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/net/http/httpproxy"

	"github.com/coffer-cc/coffer/evidence"
)

// Bounds on what a broker may send and how long it may take. A resource is
// base64 inside its envelope, so the limit holds one of three megabytes; a
// broker accepts two by default.
const (
	maxResource = 4 << 20
	maxReply    = 1 << 20 // challenge, token, error
	maxHeader   = 64 << 10
	maxCookie   = 256

	defaultTimeout = 50 * time.Second // verifying may include a look-up elsewhere
	defaultBackoff = 500 * time.Millisecond
	dialTimeout    = 10 * time.Second
	attempts       = 3

	userAgent  = "coffer"
	cookieName = "kbs-session-id"
)

// unusable is a setting that leads to no broker.
func unusable(what string) error {
	return evidence.TransportConfig.Wrap(fmt.Errorf("%s: %w", what, errdefs.ErrInvalidArgument))
}

// baseURL checks the configured URL and appends the protocol's prefix.
func baseURL(s string) (string, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Opaque != "":
		return "", unusable("kbs URL is malformed")
	case u.Scheme != "http" && u.Scheme != "https":
		return "", unusable("kbs URL is neither http nor https")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return "", unusable("kbs URL carries more than host and path")
	}
	return strings.TrimRight(u.String(), "/") + "/kbs/v0", nil
}

// Proxy is the way to the broker, as in the usual environment variables: URLs
// or host and port, and a comma separated list of hosts, domains and networks to reach directly.
type Proxy struct {
	HTTPS, HTTP, NoProxy string
}

func (p Proxy) forRequest() (func(*http.Request) (*url.URL, error), error) {
	for _, text := range []string{p.HTTPS, p.HTTP} {
		if !strings.Contains(text, "://") {
			text = "http://" + text // as the library takes it
		}
		if u, err := url.Parse(text); err != nil || text != "http://" && u.Hostname() == "" {
			return nil, unusable("kbs: malformed proxy URL")
		}
	}
	find := (&httpproxy.Config{HTTPSProxy: p.HTTPS, HTTPProxy: p.HTTP, NoProxy: p.NoProxy}).ProxyFunc()
	return func(r *http.Request) (*url.URL, error) { return find(r.URL) }, nil
}

// Via returns the proxy on the way to a URL, nil without one.
func (p Proxy) Via(u *url.URL) (*url.URL, error) {
	find, err := p.forRequest()
	if err != nil {
		return nil, err
	}
	return find(&http.Request{URL: u})
}

// server is one broker and the way to it.
type server struct {
	base string // URL up to and including /kbs/v0
	http *http.Client
}

// newServer makes a client that follows no redirect and keeps no cookies: a
// jar would drop the session in a guest whose clock runs ahead.
func newServer(c Config, where, cert string) (server, error) {
	base, err := baseURL(where)
	if err != nil {
		return server{}, err
	}
	roots, err := rootCAs(cert, c.Pin)
	if err != nil {
		return server{}, err
	}
	proxy, err := c.Proxy.forRequest()
	if err != nil {
		return server{}, err
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return server{base: base, http: &http.Client{
		Timeout:       c.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:                  proxy,
			OnProxyConnectResponse: proxyAnswered,
			DialContext:            (&net.Dialer{Timeout: dialTimeout}).DialContext,
			TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    dialTimeout,
			MaxResponseHeaderBytes: maxHeader,
			MaxIdleConns:           2,
			IdleConnTimeout:        30 * time.Second,
			DisableCompression:     true,
			Protocols:              &protocols,
		},
	}}, nil
}

// proxyAnswered keeps what a proxy says out of the error.
func proxyAnswered(_ context.Context, _ *url.URL, _ *http.Request, r *http.Response) error {
	if r.StatusCode != http.StatusOK {
		return errProxy
	}
	return nil
}

// rootCAs adds the configured certificates to those of the system, or takes
// them alone when they are pinned. A guest image without any system
// certificates is no error.
func rootCAs(cert string, pin bool) (*x509.CertPool, error) {
	if strings.TrimSpace(cert) == "" {
		if pin {
			return nil, unusable("kbs: no certificate to pin")
		}
		return nil, nil // the system's, loaded when first used
	}
	pool := x509.NewCertPool()
	if !pin {
		if system, err := x509.SystemCertPool(); err == nil {
			pool = system
		}
	}
	if !pool.AppendCertsFromPEM([]byte(cert)) {
		return nil, unusable("kbs certificate is not PEM")
	}
	return pool, nil
}

// request is one exchange with the broker.
type request struct {
	method, path string
	cookie       string // session, or ""
	token        string // bearer, or ""
	body         []byte // JSON, or nil
	limit        int64  // of the reply
}

// answer is what a successful exchange brought.
type answer struct {
	body     []byte
	cookie   string        // session that the broker set, or ""
	lifetime time.Duration // of that session, 0 if unknown
}

// do sends one request and reads the whole reply, or fails with one of the
// errors of this package. A context that ended is reported as such.
func (s server) do(ctx context.Context, r request) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, r.method, s.base+r.path, bytes.NewReader(r.body))
	if err != nil {
		return answer{}, fmt.Errorf("kbs request: %w", errdefs.ErrInvalidArgument)
	}
	req.Header.Set("User-Agent", userAgent)
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.cookie != "" {
		req.Header.Set("Cookie", cookieName+"="+r.cookie)
	}
	if r.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return answer{}, failed(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode < http.StatusOK {
		// With another protocol the body is the bare connection, and no time limit
		// ends the reading of that.
		return answer{}, refusal(resp.StatusCode, nil)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, r.limit+1))
	switch {
	case err != nil:
		return answer{}, failed(ctx, err)
	case int64(len(body)) > r.limit:
		return answer{}, malformed(evidence.TransportReply, "too large")
	case resp.StatusCode != http.StatusOK:
		return answer{}, refusal(resp.StatusCode, body)
	}
	a := answer{body: body}
	a.cookie, a.lifetime = sessionCookie(resp)
	return a, nil
}

// failed tells the caller's own end of patience from the broker's fault.
func failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return evidence.TransportTimeout.Expired(ctx)
	}
	return unreachable(err)
}

// sessionCookie finds the session in the reply. Its lifetime is the distance
// between two times of the broker, so the guest's clock does not matter.
func sessionCookie(resp *http.Response) (value string, lifetime time.Duration) {
	for _, c := range resp.Cookies() {
		if c.Name != cookieName || c.Value == "" || len(c.Value) > maxCookie {
			continue
		}
		if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil && !c.Expires.IsZero() {
			lifetime = c.Expires.Sub(date)
		}
		return c.Value, lifetime
	}
	return "", 0
}

// retry calls f until it succeeds, fails for good, or has been tried often
// enough. Pauses double and are spread out, so guests that started together do
// not come back together.
func (c *Client) retry(ctx context.Context, f func() error) error {
	pause := c.config.Backoff
	for n := 1; ; n++ {
		err := f()
		if err == nil || n == attempts || !retryable(err) {
			return err
		}
		timer := time.NewTimer(pause + rand.N(pause/2+1))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%w: %w", err, ctx.Err()) // the cause says more than the end of patience
		}
		pause *= 2
	}
}
