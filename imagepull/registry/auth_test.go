package registry_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containerd/errdefs"

	. "github.com/coffer-cc/coffer/imagepull/imagepulltest"
	"github.com/coffer-cc/coffer/imagepull/registry"
)

// tokens is a token server beside a registry that takes its tokens alone.
type tokens struct {
	challenge string // realm and the like; the server's own when empty
	status    int    // of /token
	body      string // of /token; a token for whoever has the password when empty
	asked     atomic.Int32
	strange   atomic.Int32 // requests that do not say who they are
}

// agent is what every request of a client says of itself. The guest's own API
// tells by it that a registry has sent the puller there.
const agent = "coffer/test"

func (s *tokens) answer(w http.ResponseWriter, r *http.Request) bool {
	if r.URL.Path == "/token" {
		s.token(w, r)
		return true
	}
	if r.Header.Get("Authorization") == "Bearer t0ken" {
		return false
	}
	challenge := s.challenge
	if challenge == "" {
		challenge = fmt.Sprintf(`Bearer realm="https://%s/token",service="test",scope="repository:app:pull"`, r.Host)
	}
	w.Header().Set("WWW-Authenticate", challenge)
	w.WriteHeader(http.StatusUnauthorized)
	return true
}

func (s *tokens) token(w http.ResponseWriter, r *http.Request) {
	s.asked.Add(1)
	if r.UserAgent() != agent {
		s.strange.Add(1)
	}
	user, password, _ := r.BasicAuth()
	switch {
	case s.status != 0:
		w.WriteHeader(s.status)
	case s.body != "":
		w.Write([]byte(s.body))
	case user == "user" && password == "hunter2" && strings.Contains(r.URL.Query().Get("scope"), "app"):
		w.Write([]byte(`{"token":"t0ken","expires_in":300}`))
	default:
		w.Write([]byte(`{"token":"an0nymous"}`))
	}
}

func TestTokens(t *testing.T) {
	reg := NewRegistry(t)
	reg.Push(t, "app:1", NewLayer(t, Gzip, File("a", "a")))
	for name, c := range map[string]struct {
		server *tokens
		nobody bool
		class  func(error) bool // nil: it works
	}{
		"right password":    {server: &tokens{}},
		"nobody":            {server: &tokens{}, nobody: true, class: errdefs.IsUnauthorized},
		"server refuses":    {server: &tokens{status: 401}, class: errdefs.IsUnauthorized},
		"server forbids":    {server: &tokens{status: 403}, class: errdefs.IsPermissionDenied},
		"server is down":    {server: &tokens{status: 500}, class: errdefs.IsUnavailable},
		"server is busy":    {server: &tokens{status: 503}, class: errdefs.IsUnavailable},
		"no token":          {server: &tokens{body: `{}`}, class: errdefs.IsUnauthorized},
		"no JSON":           {server: &tokens{body: `hunter2`}, class: isError},
		"wrong token":       {server: &tokens{body: `{"access_token":"t1"}`}, class: errdefs.IsUnauthorized},
		"other member":      {server: &tokens{body: `{"access_token":"t0ken"}`}},
		"no realm":          {server: &tokens{challenge: `Bearer service="test"`}, class: isError},
		"realm of no kind":  {server: &tokens{challenge: `Bearer realm="gopher://x/"`}, class: isError},
		"realm is no URL":   {server: &tokens{challenge: `Bearer realm=":%zz"`}, class: isError},
		"unknown scheme":    {server: &tokens{challenge: `Negotiate abc`}, class: isError},
		"broken challenge":  {server: &tokens{challenge: `Bearer realm="https://x`}, class: isError},
		"many commas":       {server: &tokens{challenge: `Bearer ` + strings.Repeat(",", 5000)}, class: isError},
		"basic":             {server: &tokens{challenge: `Basic realm="x"`}, class: errdefs.IsUnauthorized},
		"realm elsewhere":   {server: &tokens{challenge: `Bearer realm="https://127.0.0.1:1/token",service="x"`}, class: errdefs.IsUnavailable},
		"endless challenge": {server: &tokens{challenge: `Bearer realm="` + strings.Repeat("x", 100_000)}, class: isError},
	} {
		t.Run(name, func(t *testing.T) {
			s := c.server
			host := newFront(t, reg, "127.0.0.1:0", s.answer)
			auth := credentials(t, host)
			if c.nobody {
				auth = nil
			}
			layers, err := all(t.Context(), newClient(t, reg.Config()), reference(t, host+"/app:1"), auth)
			if c.class == nil {
				if err != nil || len(layers) != 1 || s.asked.Load() != 1 || s.strange.Load() != 0 {
					t.Errorf("%d layers, asked %d times, %v", len(layers), s.asked.Load(), err)
				}
				return
			}
			t.Log(err)
			if !c.class(err) {
				t.Errorf("%v has class %v", err, errdefs.Resolve(err))
			}
			silent(t, err)
		})
	}
}

func isError(err error) bool { return err != nil }

// silent fails when an error tells a secret or is too long for an event.
func silent(t *testing.T, err error) {
	t.Helper()
	for _, word := range []string{"hunter2", "t0ken", "dXNlcjpodW50ZXIy", "\n"} {
		if err != nil && strings.Contains(err.Error(), word) {
			t.Errorf("error tells %q: %v", word, err)
		}
	}
	if err != nil && len(err.Error()) > 600 {
		t.Errorf("error of %d bytes", len(err.Error()))
	}
}

// A registry keeps its blobs where it likes. Neither password nor token goes
// there.
func TestRedirectDropsCredentials(t *testing.T) {
	reg := NewRegistry(t)
	layer := NewLayer(t, Gzip, File("a", "a"))
	reg.Push(t, "app:1", layer)
	var leaked, served atomic.Int32
	storage := newFront(t, reg, "[::1]:0", func(w http.ResponseWriter, r *http.Request) bool {
		served.Add(1)
		if r.Header.Get("Authorization") != "" || r.Header.Get("Cookie") != "" {
			leaked.Add(1)
		}
		if r.UserAgent() != agent {
			t.Errorf("redirected as %q", r.UserAgent())
		}
		return false
	})
	for name, s := range map[string]*tokens{"token": {}, "basic": {challenge: `Basic realm="x"`}} {
		t.Run(name, func(t *testing.T) {
			served.Store(0)
			host := newFront(t, reg, "127.0.0.1:0", func(w http.ResponseWriter, r *http.Request) bool {
				if user, _, _ := r.BasicAuth(); user == "user" && name == "basic" {
					r.Header.Set("Authorization", "Bearer t0ken")
				}
				if s.answer(w, r) {
					return true
				}
				if !strings.Contains(r.URL.Path, "/blobs/") {
					return false
				}
				http.Redirect(w, r, "https://"+storage+r.URL.Path+"?signed=hunter2", http.StatusTemporaryRedirect)
				return true
			})
			if _, err := all(t.Context(), newClient(t, reg.Config()), reference(t, host+"/app:1"), credentials(t, host)); err != nil {
				t.Fatal(err)
			}
			if served.Load() != 2 || leaked.Load() != 0 {
				t.Errorf("%d requests were redirected, %d with credentials", served.Load(), leaked.Load())
			}
			reg.Break(Fault{Path: layer.Digest().String(), Status: 403})
			defer reg.Heal()
			_, err := all(t.Context(), newClient(t, reg.Config()), reference(t, host+"/app:1"), credentials(t, host))
			if !errdefs.IsPermissionDenied(err) {
				t.Errorf("storage forbids: %v", err)
			}
			silent(t, err) // the address is as good as a password
		})
	}
}

// Credentials are those of the name that was asked for: a mirror on another
// host gets none of them, and a token server of the mirror neither.
func TestMirrorGetsNoCredentials(t *testing.T) {
	reg := NewRegistry(t)
	reg.Push(t, "app:1", NewLayer(t, Gzip, File("a", "a")))
	var sent atomic.Int32
	s := &tokens{}
	mirror := newFront(t, reg, "127.0.0.1:0", func(w http.ResponseWriter, r *http.Request) bool {
		if user, _, ok := r.BasicAuth(); ok && user != "" {
			sent.Add(1)
		}
		return s.answer(w, r)
	})
	c := reg.Config()
	c.Registries = []registry.Registry{{Prefix: "registry.example", Location: "127.0.0.1:1", Mirrors: []registry.Mirror{{Location: mirror}}}}
	_, err := all(t.Context(), newClient(t, c), reference(t, "registry.example/app:1"), credentials(t, "registry.example"))
	if err == nil || sent.Load() != 0 || s.asked.Load() == 0 {
		t.Errorf("credentials went to the mirror %d times, %d tokens asked, %v", sent.Load(), s.asked.Load(), err)
	}
	silent(t, err)
}
