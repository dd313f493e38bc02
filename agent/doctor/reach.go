package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"strings"

	"golang.org/x/sys/unix"
)

// Target is a server that the guest needs.
type Target struct {
	Name  string // of the check
	URL   string // http or https
	Roots []string
	Pin   bool // trust the roots alone, and not those of the system
	// Via returns the proxy on the way, nil without one.
	Via func(*url.URL) (*url.URL, error)
}

// Reach looks whether the target's name is resolved, its port is open, and its
// certificate is trusted. Nothing is asked of it. Where a proxy is on the way
// only that is reached, since what it lets through is its own affair.
func Reach(t Target) Check {
	return Check{t.Name, t.look}
}

func (t Target) look(ctx context.Context) Finding {
	u, err := url.Parse(t.URL)
	if err != nil || u.Hostname() == "" {
		return bad("correct the URL in the settings", "its URL is malformed")
	}
	way := ""
	if t.Via != nil {
		proxy, err := t.Via(u)
		if err != nil {
			return bad("correct the proxy in the settings", "the URL of its proxy is malformed")
		}
		if proxy != nil {
			u, way = proxy, "its proxy "
		}
	}
	if f, ok := resolved(ctx, way, u.Hostname()); !ok {
		return f
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), portOf(u)))
	if err != nil {
		return bad("start it, open firewalls and network policies, look at the guest's routes", "%s%s: %s", way, u.Host, reason(err))
	}
	defer conn.Close()
	if u.Scheme != "https" {
		if way == "" {
			return warn("use https: whoever is on the way can answer in its place", "%s answers, without TLS", u.Host)
		}
		return good("%s%s answers", way, u.Host)
	}
	return t.secure(ctx, conn, way, u)
}

// secure looks at the certificate.
func (t Target) secure(ctx context.Context, conn net.Conn, way string, u *url.URL) Finding {
	roots, ok := t.roots()
	if !ok {
		return bad("correct the certificate in the settings", "the certificate to trust is not PEM")
	}
	c := tls.Client(conn, &tls.Config{ServerName: u.Hostname(), RootCAs: roots, MinVersion: tls.VersionTLS12})
	if err := c.HandshakeContext(ctx); err != nil {
		return bad("put its root into the settings; compare the name; look at the guest's clock", "%s%s: %s", way, u.Host, reason(err))
	}
	return good("%s%s answers with %s, its certificate is trusted", way, u.Host, tls.VersionName(c.ConnectionState().Version))
}

// roots is nil for those of the system alone.
func (t Target) roots() (*x509.CertPool, bool) {
	text := strings.TrimSpace(strings.Join(t.Roots, "\n"))
	if text == "" {
		return nil, !t.Pin
	}
	pool := x509.NewCertPool()
	if !t.Pin {
		if system, err := x509.SystemCertPool(); err == nil {
			pool = system
		}
	}
	return pool, pool.AppendCertsFromPEM([]byte(text))
}

func resolved(ctx context.Context, way, host string) (Finding, bool) {
	if net.ParseIP(host) != nil {
		return Finding{}, true
	}
	if _, err := net.DefaultResolver.LookupHost(ctx, host); err != nil {
		return bad("look at /etc/resolv.conf and the pod's DNS policy", "%s%s is not resolved", way, host), false
	}
	return Finding{}, true
}

func portOf(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "https":
		return "443"
	}
	return "80"
}

// reason puts a network error into fixed words: its text may hold what the other
// side sent.
func reason(err error) string {
	var (
		cert   *tls.CertificateVerificationError
		record tls.RecordHeaderError
		alert  tls.AlertError
		late   interface{ Timeout() bool }
	)
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH):
		return "no route"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &late) && late.Timeout():
		return "no answer in time"
	case errors.As(err, &cert):
		return "certificate not trusted"
	case errors.As(err, &record), errors.As(err, &alert):
		return "no TLS"
	}
	return "connection failed"
}
