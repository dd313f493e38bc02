// Package imagepulltest has what tests of image pulls need: a registry in
// memory behind TLS that can be told to fail, images made of a few files, and
// keys that count who asks for them. For tests only.
//
// The registry is that of github.com/google/go-containerregistry, with real
// digests.
package imagepulltest

import (
	"bytes"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	ggcr "github.com/google/go-containerregistry/pkg/registry"

	"github.com/coffer-cc/coffer/imagepull/encrypt"
	"github.com/coffer-cc/coffer/imagepull/registry"
)

// Registry is a running registry. It stops with the test.
type Registry struct {
	Host string // address with port, as in references
	CA   string // PEM of the certificate to trust
	URL  string

	store http.Handler

	mu     sync.Mutex // guards what follows
	faults []*Fault
	seen   []string // "METHOD path"
	auth   string
}

// Fault changes answers to requests whose method and path fit. The first one
// that fits is used.
type Fault struct {
	Method string // any when empty
	Path   string // part of the path
	Times  int    // how often it applies; 0 means always

	Status int    // answer this and nothing else
	Body   []byte // replace the body
	Cut    int    // send this many bytes of the body, then break the connection
	Short  int    // end the body this many bytes early, with a length that fits
	Flip   bool   // change the last byte of the body
	// Reached, if not nil, is closed when a request arrives that fits, and Gate
	// then holds the answer until it is closed; with Cut what Cut allows is
	// sent before.
	Reached chan struct{}
	Gate    chan struct{}

	used int
}

// NewRegistry starts a registry with TLS.
func NewRegistry(t testing.TB) *Registry {
	t.Helper()
	r := newRegistry()
	s := httptest.NewUnstartedServer(r)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	r.URL, r.Host = s.URL, strings.TrimPrefix(s.URL, "https://")
	r.CA = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	return r
}

// NewPlainRegistry starts a registry that speaks HTTP.
func NewPlainRegistry(t testing.TB) *Registry {
	t.Helper()
	r := newRegistry()
	s := httptest.NewServer(r)
	t.Cleanup(s.Close)
	r.URL, r.Host = s.URL, strings.TrimPrefix(s.URL, "http://")
	return r
}

func newRegistry() *Registry {
	return &Registry{store: ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))}
}

// Ref returns a full reference for a name such as "app:1".
func (r *Registry) Ref(name string) string { return r.Host + "/" + name }

// Docker returns the same in the form that tools take.
func (r *Registry) Docker(name string) string { return "docker://" + r.Ref(name) }

// Config reaches this registry.
func (r *Registry) Config() registry.Config {
	if r.CA == "" {
		return registry.Config{Registries: []registry.Registry{{Location: r.Host, Insecure: true}}}
	}
	return registry.Config{Roots: []string{r.CA}}
}

// Remote reaches this registry for package encrypt.
func (r *Registry) Remote() encrypt.Remote {
	if r.CA == "" {
		return encrypt.Remote{PlainHTTP: true}
	}
	return encrypt.Remote{Roots: []string{r.CA}}
}

// Break adds a fault.
func (r *Registry) Break(f Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, &f)
}

// Heal removes all faults.
func (r *Registry) Heal() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = nil
}

// RequireAuth makes the registry answer 401 to whoever does not send this user
// and password.
func (r *Registry) RequireAuth(user, password string) {
	req := http.Request{Header: http.Header{}}
	req.SetBasicAuth(user, password)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.auth = req.Header.Get("Authorization")
}

// Count returns how many requests with this method had part in their path.
func (r *Registry) Count(method, part string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, s := range r.seen {
		m, path, _ := strings.Cut(s, " ")
		if m == method && strings.Contains(path, part) {
			n++
		}
	}
	return n
}

// Requests returns all requests so far as "METHOD path".
func (r *Registry) Requests() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.seen...)
}

// ServeHTTP implements http.Handler.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	f, auth := r.note(req)
	if auth != "" && req.Header.Get("Authorization") != auth {
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if f == nil {
		r.store.ServeHTTP(w, req)
		return
	}
	f.serve(w, req, r.store)
}

// note records the request and finds the fault that fits.
func (r *Registry) note(req *http.Request) (*Fault, string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, req.Method+" "+req.URL.Path)
	for _, f := range r.faults {
		if f.Method != "" && f.Method != req.Method || !strings.Contains(req.URL.Path, f.Path) || f.Times > 0 && f.used == f.Times {
			continue
		}
		if f.used++; f.used == 1 && f.Reached != nil {
			close(f.Reached)
		}
		return f, r.auth
	}
	return nil, r.auth
}

func (f *Fault) serve(w http.ResponseWriter, req *http.Request, store http.Handler) {
	if f.Status != 0 {
		w.WriteHeader(f.Status)
		io.WriteString(w, `{"errors":[]}`)
		return
	}
	if f.Gate != nil && f.Cut == 0 {
		f.wait(req)
	}
	rec := httptest.NewRecorder()
	store.ServeHTTP(rec, req)
	body := rec.Body.Bytes()
	if f.Body != nil {
		body = f.Body
	}
	if f.Flip && len(body) > 0 {
		body = bytes.Clone(body)
		body[len(body)-1] ^= 1
	}
	body = body[:max(0, len(body)-f.Short)]
	for k, v := range rec.Header() {
		w.Header()[k] = v
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(rec.Code)
	if f.Cut == 0 || f.Cut >= len(body) {
		w.Write(body)
		return
	}
	w.Write(body[:f.Cut])
	w.(http.Flusher).Flush()
	if f.Gate == nil {
		panic(http.ErrAbortHandler)
	}
	f.wait(req)
	w.Write(body[f.Cut:])
}

// wait ends the request of a client that does not wait as long: its library
// would still take an answer that comes while it closes the connection.
func (f *Fault) wait(req *http.Request) {
	select {
	case <-f.Gate:
	case <-req.Context().Done():
		panic(http.ErrAbortHandler)
	}
}
