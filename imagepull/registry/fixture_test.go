package registry_test

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	. "github.com/coffer-cc/coffer/imagepull/imagepulltest"
	"github.com/coffer-cc/coffer/imagepull/registry"
)

// newFront stands before a registry and sees every request; answer returns true
// when it has answered. It has the registry's certificate and listens on
// address, which may be of the other IP version so that it counts as another
// host.
func newFront(t *testing.T, r *Registry, address string, answer func(http.ResponseWriter, *http.Request) bool) string {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Skipf("no address %s here: %v", address, err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !answer(w, req) {
			r.ServeHTTP(w, req)
		}
	}))
	s.Listener.Close()
	s.Listener = l
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "https://")
}

func newClient(t *testing.T, c registry.Config) *registry.Client {
	t.Helper()
	c.Dir, c.Backoff, c.Agent = t.TempDir(), time.Millisecond, agent
	client, err := registry.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	return client
}

func reference(t *testing.T, text string) registry.Reference {
	t.Helper()
	r, err := registry.ParseReference(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func credentials(t *testing.T, host string) *registry.Auth {
	t.Helper()
	a, err := registry.ParseAuth([]byte(`{"auths":{"` + host + `":{"username":"user","password":"hunter2"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// all resolves an image and reads its configuration and layers.
func all(ctx context.Context, c *registry.Client, r registry.Reference, a *registry.Auth) ([][]byte, error) {
	img, err := c.Resolve(ctx, r, a)
	if err != nil {
		return nil, err
	}
	defer img.Close()
	if _, err := img.Config(ctx); err != nil {
		return nil, err
	}
	var out [][]byte
	for _, l := range img.Manifest.Layers {
		blob := img.Blob(ctx, l)
		raw, err := io.ReadAll(blob)
		blob.Close()
		if err != nil {
			return nil, err
		}
		out = append(out, raw)
	}
	return out, nil
}
