package registry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	. "github.com/coffer-cc/coffer/imagepull/imagepulltest"
	"github.com/coffer-cc/coffer/imagepull/registry"
)

// serve is a handler for one blob that sees the range asked for.
type serve func(w http.ResponseWriter, from int, asked bool)

// blobOf reads a blob of a registry that serves it in its own way.
func blobOf(t *testing.T, body []byte, change func(*registry.Config), s serve) ([]byte, error) {
	t.Helper()
	reg := NewRegistry(t)
	layer := NewLayer(t, Plain)
	layer.Blob = body
	reg.Push(t, "app:1", layer)
	host := newFront(t, reg, "127.0.0.1:0", func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, layer.Digest().String()) {
			return false
		}
		from := 0
		n, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
		s(w, from, n == 1)
		return true
	})
	c := reg.Config()
	if change != nil {
		change(&c)
	}
	img, err := newClient(t, c).Resolve(t.Context(), reference(t, host+"/app:1"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	r := img.Blob(t.Context(), img.Manifest.Layers[0])
	defer r.Close()
	raw, err := io.ReadAll(r)
	if n, again := r.Read(make([]byte, 1)); n != 0 || err == nil && again != io.EOF || err != nil && again == nil {
		t.Errorf("behind the end: %d, %v", n, again)
	}
	return raw, err
}

// part answers with bytes from to until of the body, under the length of all of
// it, and then breaks the connection unless that was all.
func part(w http.ResponseWriter, body []byte, from, until int, ranged bool) {
	if ranged {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(body)-1, len(body)))
		w.Header().Set("Content-Length", fmt.Sprint(len(body)-from))
		w.WriteHeader(http.StatusPartialContent)
	} else {
		from = 0
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	}
	until = max(from, min(until, len(body)))
	w.Write(body[from:until])
	if until < len(body) {
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
}

func TestBlobIsPickedUp(t *testing.T) {
	body := bytes.Repeat([]byte("0123456789abcdef"), 256<<10) // 4 MiB
	for name, s := range map[string]func(*atomic.Int32) serve{
		"by range": func(n *atomic.Int32) serve {
			return func(w http.ResponseWriter, from int, asked bool) { part(w, body, from, int(n.Add(1))*1_300_000, asked) }
		},
		"without ranges": func(n *atomic.Int32) serve {
			return func(w http.ResponseWriter, from int, asked bool) { part(w, body, 0, int(n.Add(1))*1_300_000, false) }
		},
		"busy in between": func(n *atomic.Int32) serve {
			return func(w http.ResponseWriter, from int, asked bool) {
				if n.Add(1)%2 == 0 {
					w.WriteHeader(http.StatusServiceUnavailable)
					return
				}
				part(w, body, from, int(n.Load())*900_000, asked)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			var n atomic.Int32
			got, err := blobOf(t, body, nil, s(&n))
			if err != nil || !bytes.Equal(got, body) || n.Load() < 3 {
				t.Errorf("%d bytes in %d requests, %v", len(got), n.Load(), err)
			}
		})
	}
}

func TestBlobRefuses(t *testing.T) {
	body := bytes.Repeat([]byte("0123456789abcdef"), 10<<10)
	wrong := bytes.Clone(body)
	wrong[len(wrong)-1] ^= 1
	for name, c := range map[string]struct {
		s     serve
		class error
	}{
		"other bytes": {func(w http.ResponseWriter, _ int, _ bool) { w.Write(wrong) }, errdefs.ErrDataLoss},
		"longer": {func(w http.ResponseWriter, _ int, _ bool) {
			w.Header().Set("Transfer-Encoding", "chunked")
			w.Write(append(bytes.Clone(body), 'x'))
		}, errdefs.ErrDataLoss},
		"length of another":  {func(w http.ResponseWriter, _ int, _ bool) { w.Write(body[:100]) }, errdefs.ErrDataLoss},
		"always cut":         {func(w http.ResponseWriter, from int, asked bool) { part(w, body, from, 1000, asked) }, errdefs.ErrUnavailable},
		"gone in the middle": {gone(body), errdefs.ErrNotFound},
		"another range": {func(w http.ResponseWriter, from int, asked bool) {
			if asked {
				w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", 0, len(body)-1, len(body)))
				w.WriteHeader(http.StatusPartialContent)
				w.Write(body)
				return
			}
			part(w, body, 0, 1000, false)
		}, nil},
		"compressed": {func(w http.ResponseWriter, _ int, _ bool) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(body)
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := blobOf(t, body, nil, c.s)
			if name == "compressed" && err == nil {
				return // the header is nobody's business here; the bytes are right
			}
			t.Log(err)
			if err == nil || c.class != nil && !errors.Is(err, c.class) {
				t.Errorf("%v has class %v", err, errdefs.Resolve(err))
			}
			silent(t, err)
		})
	}
}

func gone(body []byte) serve {
	var n atomic.Int32
	return func(w http.ResponseWriter, from int, asked bool) {
		if n.Add(1) > 1 {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		part(w, body, from, 1000, asked)
	}
}

// A connection that trickles is given up as one that stands still, and a caller
// that is slow itself is no reason.
func TestBlobStalls(t *testing.T) {
	body := make([]byte, 64<<10)
	var n atomic.Int32
	_, err := blobOf(t, body, func(c *registry.Config) { c.Stall, c.Attempts = 100*time.Millisecond, 2 }, func(w http.ResponseWriter, from int, asked bool) {
		n.Add(1)
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		for i := range 100 {
			if _, err := w.Write(body[i : i+1]); err != nil {
				return
			}
			w.(http.Flusher).Flush()
			time.Sleep(20 * time.Millisecond) // the trickle itself
		}
		panic(http.ErrAbortHandler)
	})
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "sent less than") || n.Load() != 2 {
		t.Errorf("%d requests, %v", n.Load(), err)
	}
}

func TestBlobEndsWithItsContext(t *testing.T) {
	reg := NewRegistry(t)
	layer := NewLayer(t, Plain, File("a", strings.Repeat("x", 1<<20)))
	reg.Push(t, "app:1", layer)
	gate, reached := make(chan struct{}), make(chan struct{})
	defer close(gate)
	reg.Break(Fault{Path: layer.Digest().String(), Cut: 1000, Gate: gate, Reached: reached})
	img, err := newClient(t, reg.Config()).Resolve(t.Context(), reference(t, reg.Ref("app:1")), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	ctx, cancel := context.WithCancel(t.Context())
	r := img.Blob(ctx, img.Manifest.Layers[0])
	defer r.Close()
	go func() { <-reached; cancel() }()
	if _, err := io.ReadAll(r); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	none := img.Blob(t.Context(), v1.Descriptor{Digest: digest.FromString("none"), Size: 4})
	if _, err := io.ReadAll(none); !errdefs.IsNotFound(err) {
		t.Errorf("unknown blob: %v", err)
	}
	none.Close()
	if _, err := none.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("read after close: %v", err)
	}
}
