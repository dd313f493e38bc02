package kbs_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/kbs"
)

// trips counts what goes over the wire.
type trips struct {
	mu          sync.Mutex // guards what follows
	requests    int
	attests     int
	connections map[string]bool
}

func countTrips(k *evidencetest.KBS) *trips {
	c := &trips{connections: map[string]bool{}}
	k.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.requests++
		if strings.HasSuffix(r.URL.Path, "/attest") {
			c.attests++
		}
		c.connections[r.RemoteAddr] = true
		return false
	})
	return c
}

// since is the number of requests, and of attestations among them, after the
// last time.
func (c *trips) since() (requests, attests int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	requests, attests = c.requests, c.attests
	c.requests, c.attests = 0, 0
	return requests, attests
}

// The first key takes a guest three requests over one connection and each
// further one a single request, with any kind of key and any transport.
func TestRoundTrips(t *testing.T) {
	for transport, listen := range transports {
		for kind := range keyKinds {
			t.Run(fmt.Sprintf("%s/%s", transport, kind), func(t *testing.T) {
				k := listen(t, options())
				count := countTrips(k)
				c := newClient(t, kbs.Config{URL: k.URL, Cert: k.Cert, KeyAlgorithm: kind})
				for i, want := range [][2]int{{3, 1}, {1, 0}, {1, 0}} {
					wantContents(t, c)
					if n, attests := count.since(); n != want[0] || attests != want[1] {
						t.Errorf("key %d took %d requests and %d attestations, want %d", i+1, n, attests, want)
					}
				}
				if len(count.connections) != 1 {
					t.Errorf("%d connections, want one", len(count.connections))
				}
			})
		}
	}
}

const crowd = 16

// Keys for a pod of many containers take one attestation and a request each.
func TestRoundTripsOfACrowd(t *testing.T) {
	for transport, listen := range transports {
		t.Run(transport, func(t *testing.T) {
			k := listen(t, options())
			count := countTrips(k)
			c := newClient(t, kbs.Config{URL: k.URL, Cert: k.Cert})
			for _, want := range [][2]int{{2 + crowd, 1}, {crowd, 0}} {
				fetchAll(t, c)
				if n, attests := count.since(); n != want[0] || attests != want[1] {
					t.Errorf("%d keys took %d requests and %d attestations, want %d", crowd, n, attests, want)
				}
			}
		})
	}
}

// fetchAll asks for the resource from many goroutines at once.
func fetchAll(t testing.TB, c *kbs.Client) {
	t.Helper()
	var wait sync.WaitGroup
	for range crowd {
		wait.Go(func() {
			if got, err := c.Resource(ctx, name); err != nil || string(got) != contents {
				t.Errorf("Resource = %d bytes, %v", len(got), err)
			}
		})
	}
	wait.Wait()
}
