package registry

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"

	"github.com/containerd/errdefs"
)

// Proxy is used to reach registries. The library takes one proxy per registry,
// so that redirects and token servers go the way of the registry itself.
type Proxy struct {
	HTTPS, HTTP string // URLs; HTTP counts when there is no HTTPS
	NoProxy     string // hosts, domains, addresses and networks, comma separated; * is all
}

func (p Proxy) check() error {
	for _, text := range []string{p.HTTPS, p.HTTP} {
		u, err := url.Parse(text)
		if err != nil || text != "" && u.Host == "" {
			return fmt.Errorf("malformed proxy URL: %w", errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// forHost returns the proxy for a registry, or "".
func (p Proxy) forHost(hostport string) string {
	proxy := p.HTTPS
	if proxy == "" {
		proxy = p.HTTP
	}
	if proxy == "" || p.excepts(hostport) {
		return ""
	}
	return proxy
}

func (p Proxy) excepts(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	addr, notAddr := netip.ParseAddr(host)
	for _, rule := range strings.Split(p.NoProxy, ",") {
		rule = strings.ToLower(strings.TrimSpace(rule))
		if rule == "*" || rule != "" && (rule == host || rule == hostport) {
			return true
		}
		if domain := strings.TrimPrefix(strings.TrimPrefix(rule, "*"), "."); domain != "" && strings.HasSuffix(host, "."+domain) {
			return true
		}
		if network, err := netip.ParsePrefix(rule); err == nil && notAddr == nil && network.Contains(addr) {
			return true
		}
	}
	return false
}
