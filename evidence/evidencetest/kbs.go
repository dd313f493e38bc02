package evidencetest

import (
	"encoding/pem"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/coffer-cc/coffer/evidence/devkbs"
)

// KBS is a development key broker on a real port of this machine. It counts
// requests, and answers in place of the broker where a test wants that.
type KBS struct {
	Broker *devkbs.Server
	URL    string
	Cert   string // PEM of its certificate; "" without TLS

	server    *httptest.Server
	mu        sync.Mutex // guards the rest
	counts    map[string]int
	intercept func(http.ResponseWriter, *http.Request) bool
}

// NewKBS starts a broker for the length of the test.
func NewKBS(t testing.TB, o devkbs.Options) *KBS { return start(t, o, httptest.NewServer) }

// NewTLSKBS is NewKBS over TLS with a certificate of its own.
func NewTLSKBS(t testing.TB, o devkbs.Options) *KBS { return start(t, o, httptest.NewTLSServer) }

func start(t testing.TB, o devkbs.Options, listen func(http.Handler) *httptest.Server) *KBS {
	t.Helper()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	broker, err := devkbs.New(o)
	if err != nil {
		t.Fatal(err)
	}
	k := &KBS{Broker: broker, counts: map[string]int{}}
	k.server = listen(k)
	t.Cleanup(k.server.Close)
	k.URL = k.server.URL
	if cert := k.server.Certificate(); cert != nil {
		k.Cert = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
	}
	return k
}

// ServeHTTP counts the request and hands it on.
func (k *KBS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	verb, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/kbs/v0/"), "/")
	k.mu.Lock()
	k.counts[verb]++
	intercept := k.intercept
	k.mu.Unlock()
	if intercept == nil || !intercept(w, r) {
		k.Broker.ServeHTTP(w, r)
	}
}

// Close ends the broker and its connections before the test does.
func (k *KBS) Close() { k.server.Close() }

// Count returns how many requests there were for auth, attest or resource.
func (k *KBS) Count(verb string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.counts[verb]
}

// Intercept has f see every request first; where it returns true it has
// answered. Nil ends that.
func (k *KBS) Intercept(f func(http.ResponseWriter, *http.Request) bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.intercept = f
}

// Resources makes a folder in memory, by path repository/type/tag.
func Resources(contents map[string]string) fs.FS {
	files := fstest.MapFS{}
	for path, text := range contents {
		files[path] = &fstest.MapFile{Data: []byte(text)}
	}
	return files
}
