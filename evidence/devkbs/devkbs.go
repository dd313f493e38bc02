// Package devkbs is a small key broker for development: a laptop demonstration
// and tests. It speaks protocol 0.4.0 of Trustee and verifies what it is sent,
// that the nonce is its own, that the key is bound into the evidence, and the
// evidence itself, by evidence/verify. It derives everything anew and shares no
// code with the client, so that a mistake on one side does not hide one on the
// other. It is never part of the agent; production is Trustee.
//
// The JOSE library is used to sign tokens and to encrypt resources.
package devkbs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/go-jose/go-jose/v4"

	"github.com/coffer-cc/coffer/evidence/resource"
	"github.com/coffer-cc/coffer/evidence/verify"
)

const (
	version = "0.4.0"
	prefix  = "/kbs/v0"

	// maxBody is what Trustee accepts by default.
	maxBody = 2 << 20
	// maxResource bounds one file of the folder.
	maxResource = 2 << 20

	errorPrefix = "https://github.com/confidential-containers/kbs/errors/"

	defaultLifetime = 5 * time.Minute
)

// Options says what a Server gives to whom.
type Options struct {
	// Resources holds one file per resource, named repository/type/tag. Use
	// Folder for a directory.
	Resources fs.FS
	// AllowSample accepts evidence that anybody can write. Without it a guest
	// without hardware gets nothing.
	AllowSample bool
	// Rules say which guests get which resources. Nil gives all of them to every
	// guest whose evidence is genuine, but for debug guests.
	Rules Rules
	// Issuer is the name in tokens; "" is this package's Issuer, which a guest on
	// a real platform refuses, so that no production guest depends on a laptop.
	Issuer string
	// Verify says whose signatures count; zero are those of the vendors.
	Verify verify.Options
	// Refuse denies every resource from the start, as a policy would.
	Refuse bool
	// Trust are the signing keys of other brokers whose tokens count here, as
	// PublicKey of those.
	Trust []*ecdsa.PublicKey
	// Lifetime is that of sessions and tokens; 0 is five minutes.
	Lifetime time.Duration
	// Log gets one line for each decision; nil is the default logger.
	Log *slog.Logger
}

// Server is the broker as an http.Handler. It is safe for concurrent use.
type Server struct {
	options Options
	mux     *http.ServeMux
	key     *ecdsa.PrivateKey // signs tokens
	signer  jose.Signer
	refuse  atomic.Bool

	mu       sync.Mutex // guards sessions and what they hold
	sessions map[string]*session
}

// New makes a broker with a signing key of its own, which dies with it.
func New(o Options) (*Server, error) {
	if o.Resources == nil {
		return nil, fmt.Errorf("devkbs: no resources: %w", errdefs.ErrInvalidArgument)
	}
	if o.Issuer == "" {
		o.Issuer = Issuer
	}
	if o.Rules == nil {
		o.Rules = Rules{{Path: "*/*/*"}}
	}
	if o.Lifetime <= 0 {
		o.Lifetime = defaultLifetime
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make signing key: %w", err)
	}
	signer, err := newSigner(key)
	if err != nil {
		return nil, err
	}
	s := &Server{options: o, key: key, signer: signer, sessions: map[string]*session{}, mux: http.NewServeMux()}
	s.refuse.Store(o.Refuse)
	s.mux.HandleFunc("POST "+prefix+"/auth", s.reply(s.auth))
	s.mux.HandleFunc("POST "+prefix+"/attest", s.reply(s.attest))
	s.mux.HandleFunc("GET "+prefix+"/resource/{path...}", s.reply(s.resource))
	s.mux.HandleFunc("/", s.reply(func(http.ResponseWriter, *http.Request) (any, error) {
		return nil, &refusal{kind: "InvalidRequestPath", detail: "no such path", status: http.StatusNotFound}
	}))
	return s, nil
}

// ServeHTTP serves the protocol below /kbs/v0.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// PublicKey is what the broker's tokens can be verified with.
func (s *Server) PublicKey() *ecdsa.PublicKey { return &s.key.PublicKey }

// SetRefuse makes the broker deny every resource, or none, from now on.
func (s *Server) SetRefuse(refuse bool) { s.refuse.Store(refuse) }

// refusal is an error as the protocol tells it.
type refusal struct {
	kind, detail string
	status       int    // 0 is 401, the protocol's answer to nearly everything
	reason       string // for the log alone
}

func (r *refusal) Error() string {
	if r.reason != "" {
		return r.kind + ": " + r.reason
	}
	return r.kind + ": " + r.detail
}

// denied is a refusal of a resource. The guest does not learn the reason.
func denied(reason string) error {
	return &refusal{kind: "PolicyDeny", detail: "Access denied by policy", reason: reason}
}

func refuseAttestation(detail string) error {
	return &refusal{kind: "AttestationError", detail: "Attestation error: " + detail}
}

// reply turns a handler that returns a value or an error into one that writes
// JSON.
func (s *Server) reply(h func(http.ResponseWriter, *http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		v, err := h(w, r)
		if err != nil {
			s.refused(w, r, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if raw, ok := v.(json.RawMessage); ok {
			_, _ = w.Write(raw)
			return
		}
		_ = json.NewEncoder(w).Encode(v)
	}
}

func (s *Server) refused(w http.ResponseWriter, r *http.Request, err error) {
	s.options.Log.WarnContext(r.Context(), "refused", "path", r.URL.Path, "reason", err.Error())
	var (
		told *refusal
		big  *http.MaxBytesError
	)
	if errors.As(err, &big) {
		http.Error(w, "payload too large", http.StatusRequestEntityTooLarge)
		return
	}
	if !errors.As(err, &told) {
		told = &refusal{kind: "SerdeError", detail: "Serialize/Deserialize failed"}
	}
	if told.status == 0 {
		told.status = http.StatusUnauthorized
	}
	w.WriteHeader(told.status)
	_ = json.NewEncoder(w).Encode(map[string]string{"type": errorPrefix + told.kind, "detail": told.detail})
}

// resource gives an attested guest one file, encrypted to its key.
func (s *Server) resource(_ http.ResponseWriter, r *http.Request) (any, error) {
	guest, err := s.guestOf(r)
	if err != nil {
		return nil, err
	}
	if s.refuse.Load() {
		return nil, denied("all are denied")
	}
	missing := &refusal{kind: "PluginInternalError", detail: "Plugin internal error"}
	u, err := resource.ParsePath(r.PathValue("path"))
	if err != nil {
		return nil, missing
	}
	if reason := s.options.Rules.deny(u.Path(), guest.statement); reason != "" {
		return nil, denied(reason)
	}
	plain, err := readFile(s.options.Resources, u.Path())
	if err != nil {
		return nil, missing
	}
	sealed, err := guest.key.encrypt(plain)
	if err != nil {
		return nil, &refusal{kind: "JweError", detail: "JWE failed"}
	}
	s.options.Log.InfoContext(r.Context(), "gave resource", "resource", u.String(), "tee", guest.statement.TEE)
	return json.RawMessage(sealed), nil
}

func readFile(files fs.FS, name string) ([]byte, error) {
	f, err := files.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxResource+1))
	if err == nil && len(b) > maxResource {
		err = fmt.Errorf("resource exceeds %d bytes: %w", maxResource, errdefs.ErrInvalidArgument)
	}
	return b, err
}
