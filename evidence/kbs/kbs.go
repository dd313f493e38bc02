// Package kbs fetches resources from a key broker of Trustee, protocol 0.4.0:
//
//	guest                              broker
//	  | POST auth    {version, tee}      |
//	  |--------------------------------->|
//	  |        {nonce}, session cookie   |
//	  |<---------------------------------|
//	  | hash of nonce and public key     |
//	  | goes into the evidence           |
//	  | POST attest  {nonce, key, evid.} |
//	  |--------------------------------->|  verifies
//	  |                 {token}          |
//	  |<---------------------------------|
//	  | GET resource/r/t/g   cookie      |  once per resource,
//	  |--------------------------------->|  until the session ends
//	  |     JWE to the attested key      |
//	  |<---------------------------------|
//
// Where one broker attests and another keeps the resources, the token of the
// former is shown to the latter instead of the cookie.
//
// Confidentiality of a resource rests on the key, which never leaves this
// process, and not on TLS. That the broker is the right one rests on TLS, so a
// resource from an http URL is confidential but may come from anybody.
//
// The JOSE library is used to decrypt resources: key agreement, key unwrapping
// and authenticated decryption are nothing to write a second time. So are the
// rules of no_proxy, which golang.org/x/net/http/httpproxy knows.
package kbs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/resource"
	"github.com/coffer-cc/coffer/evidence/secret"
)

// Phases that Config.Observe hears of.
const (
	PhaseChallenge = "challenge" // part of a handshake: the first reply of the broker
	PhaseEvidence  = "evidence"  // part of a handshake: platform and devices
	PhaseVerdict   = "verdict"   // part of a handshake: the broker judges
	PhaseAttest    = "attest"    // one handshake, with all attempts
	PhaseKey       = "key"       // one resource, after the handshake
)

// Config tells New what to talk to. Only URL and Collector are required.
type Config struct {
	URL       string // http or https, optionally with a path in front of /kbs/v0
	Cert      string // PEM certificates trusted beside those of the system
	Collector evidence.Collector
	// Devices make statements of their own in the same handshake, bound to the
	// same key and nonce, and the platform's statement is bound to theirs. One
	// that cannot make its statement ends the attestation. No two are of a kind.
	Devices []evidence.Collector

	// InitData is the text that the platform measured, sent along so that the
	// broker can judge by its contents. Nil sends none.
	InitData []byte
	// Unbound has the evidence say that no hardware vouches for the initdata.
	Unbound bool
	// AttestURL, if set, is the broker that attests, while URL gives out the
	// resources to whoever shows the token of the former (passport). Empty, or
	// the same as URL, lets one broker do both. AttestCert belongs to it.
	AttestURL  string
	AttestCert string
	// Pin trusts the configured certificates alone, not those of the system.
	Pin   bool
	Proxy Proxy
	// KeyAlgorithm is that of the key resources are wrapped for, by the names
	// of tee_key_algorithm; empty is DefaultKeyAlgorithm.
	KeyAlgorithm string
	// Epoch, if not nil, counts what changes the guest after its start, such as
	// an extended register or another policy. What was attested in an earlier
	// epoch gets no further resource: the guest attests again first. It is
	// called from any goroutine and never goes back.
	Epoch func() uint64
	// Observe, if not nil, hears how long each successful phase took. It is
	// called on the goroutine that did the work.
	Observe func(phase string, d time.Duration)

	// Timeout bounds one request including the reading of its reply; Backoff
	// is the first pause between attempts and doubles. Zero means the default.
	Timeout time.Duration
	Backoff time.Duration
}

// Client talks to one broker. It is safe for concurrent use. It keeps the
// session and its key in memory until they expire, so a guest attests once for
// many resources.
type Client struct {
	config    Config
	newKey    func() (*teeKey, error)
	verifier  server // attests
	resources server // gives out; the same as verifier unless passports are shown

	mu      sync.Mutex // guards current and flight
	current *session   // nil before the first handshake and after a refusal
	flight  *flight    // handshake under way, or nil
}

// New checks the configuration. It opens no connection. A malformed URL or
// certificate wraps errdefs.ErrInvalidArgument.
func New(c Config) (*Client, error) {
	if c.Collector == nil {
		return nil, fmt.Errorf("kbs: no collector of evidence: %w", errdefs.ErrInvalidArgument)
	}
	if err := checkDevices(c.Devices); err != nil {
		return nil, err
	}
	newKey, err := keyMaker(c.KeyAlgorithm)
	if err != nil {
		return nil, err
	}
	if c.Timeout <= 0 {
		c.Timeout = defaultTimeout
	}
	if c.Backoff <= 0 {
		c.Backoff = defaultBackoff
	}
	client := &Client{config: c, newKey: newKey}
	if client.resources, err = newServer(c, c.URL, c.Cert); err != nil {
		return nil, err
	}
	client.verifier = client.resources
	if c.AttestURL != "" {
		if client.verifier, err = newServer(c, c.AttestURL, c.AttestCert); err != nil {
			return nil, err
		}
	}
	return client, nil
}

// passport tells whether resources come from another broker than the verdict.
func (c *Client) passport() bool { return c.verifier.base != c.resources.base }

// Resource returns the contents of one resource; the caller wipes them. It
// attests first unless a session is at hand, and any number of callers share
// one attestation. A session that the broker no longer knows is replaced once.
// An empty resource fails as malformed: the library takes it for damage.
// Errors have an evidence.Code and wrap one of this package's: ErrDenied, ErrNotFound, ErrAttestation,
// ErrSession, ErrIssuer, ErrWrap, ErrUnreachable, ErrReply, ErrFault.
func (c *Client) Resource(ctx context.Context, u resource.URI) (secret.Bytes, error) {
	if err := u.Check(); err != nil {
		return nil, err
	}
	for renewed := false; ; renewed = true {
		s, err := c.session(ctx)
		if err != nil {
			return nil, err
		}
		start := time.Now()
		b, err := c.get(ctx, s, u)
		if err == nil {
			c.observe(PhaseKey, start)
			return b, nil
		}
		if !errors.Is(err, ErrSession) || renewed {
			return nil, fmt.Errorf("fetch %s: %w", u, err)
		}
		c.drop(s)
	}
}

// Attest makes sure that there is a session, as Resource does first.
func (c *Client) Attest(ctx context.Context) error {
	_, err := c.session(ctx)
	return err
}

// get fetches one resource with the session, trying again while the broker
// cannot be reached.
func (c *Client) get(ctx context.Context, s *session, u resource.URI) (secret.Bytes, error) {
	var body secret.Bytes
	err := c.retry(ctx, func() error {
		r := request{method: http.MethodGet, path: "/resource/" + u.Path(), cookie: s.cookie, limit: maxResource}
		if c.passport() {
			r.cookie, r.token = "", s.token
		}
		reply, err := c.resources.do(ctx, r)
		body = reply.body
		return err
	})
	if err != nil {
		return nil, err
	}
	return s.key.decrypt(body)
}

func (c *Client) epoch() uint64 {
	if c.config.Epoch == nil {
		return 0
	}
	return c.config.Epoch()
}

func (c *Client) observe(phase string, start time.Time) {
	if c.config.Observe != nil {
		c.config.Observe(phase, time.Since(start))
	}
}
