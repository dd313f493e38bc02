package registry_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/coffer-cc/coffer/imagepull/imagepulltest"
)

// upgraded answers that it speaks another protocol from here on, and then keeps
// the connection open without a word.
func upgraded(t *testing.T, w http.ResponseWriter) {
	t.Helper()
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := conn.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: hunter2\r\n\r\n")); err != nil {
		t.Log(err) // the client has gone already
	}
}

// TestUpgrade is of a registry, or of the host in its place, that hands over the
// bare connection, whose reads no limit of the HTTP client ends. None of the
// requests of a pull reads from it.
func TestUpgrade(t *testing.T) {
	reg := NewRegistry(t)
	reg.Push(t, "app:1", NewLayer(t, Gzip, File("a", "a")))
	for _, leg := range []string{"/v2/", "/manifests/", "/blobs/", "/token"} {
		t.Run(leg, func(t *testing.T) {
			s := &tokens{}
			var sent atomic.Int32
			host := newFront(t, reg, "127.0.0.1:0", func(w http.ResponseWriter, r *http.Request) bool {
				if leg == "/v2/" && r.URL.Path == leg || leg != "/v2/" && strings.Contains(r.URL.Path, leg) {
					sent.Add(1)
					upgraded(t, w)
					return true
				}
				return leg == "/token" && s.answer(w, r)
			})
			c := reg.Config()
			c.Timeout, c.Stall, c.Attempts = 10*time.Minute, 10*time.Minute, 2
			ended := make(chan error, 1)
			go func() {
				_, err := all(t.Context(), newClient(t, c), reference(t, host+"/app:1"), nil)
				ended <- err
			}()
			select {
			case err := <-ended:
				if err == nil || !strings.Contains(err.Error(), "101") || sent.Load() == 0 {
					t.Errorf("%d connections handed over, %v", sent.Load(), err)
				}
				silent(t, err)
			case <-time.After(20 * time.Second):
				t.Fatal("the pull does not end")
			}
		})
	}
}
