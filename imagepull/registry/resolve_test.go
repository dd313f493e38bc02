package registry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	. "github.com/coffer-cc/coffer/imagepull/imagepulltest"
	"github.com/coffer-cc/coffer/imagepull/registry"
)

func TestStatus(t *testing.T) {
	for status, class := range map[int]func(error) bool{
		401: errdefs.IsUnauthorized, 403: errdefs.IsPermissionDenied, 404: errdefs.IsNotFound,
		429: errdefs.IsUnavailable, 500: errdefs.IsUnavailable, 502: errdefs.IsUnavailable, 503: errdefs.IsUnavailable,
		400: isError, 418: isError, 204: isError, 301: isError,
	} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel() // the library itself waits when a registry is busy
			reg := NewRegistry(t)
			reg.Push(t, "app:1", NewLayer(t, Gzip, File("a", "a")))
			for _, path := range []string{"/manifests/", "/blobs/"} {
				if status == 429 && path == "/blobs/" {
					continue
				}
				reg.Break(Fault{Path: path, Status: status})
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				c := newClient(t, func() registry.Config { c := reg.Config(); c.Attempts = 1; c.Timeout = time.Second; return c }())
				_, err := all(ctx, c, reference(t, reg.Ref("app:1")), nil)
				cancel()
				if !class(err) {
					t.Errorf("%s: %v has class %v", path, err, errdefs.Resolve(err))
				}
				silent(t, err)
				reg.Heal()
			}
		})
	}
}

// A fault that passes is waited for.
func TestResolveTriesAgain(t *testing.T) {
	reg := NewRegistry(t)
	reg.Push(t, "app:1", NewLayer(t, Gzip, File("a", "a")))
	reg.Break(Fault{Path: "/manifests/", Status: 503, Times: 2})
	if _, err := all(t.Context(), newClient(t, reg.Config()), reference(t, reg.Ref("app:1")), nil); err != nil {
		t.Error(err)
	}
	reg.Heal()
	reg.Break(Fault{Path: "/manifests/", Status: 404})
	before := len(reg.Requests())
	if _, err := all(t.Context(), newClient(t, reg.Config()), reference(t, reg.Ref("app:1")), nil); !errdefs.IsNotFound(err) {
		t.Error(err)
	}
	if n := len(reg.Requests()) - before; n > 2 {
		t.Errorf("%d requests for what is not there: %q", n, reg.Requests()[before:])
	}
}

// endless answers requests whose path has part with a body that never ends.
func endless(part string, sent *atomic.Int64) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, part) {
			return false
		}
		if strings.Contains(part, "manifest") {
			w.Header().Set("Content-Type", v1.MediaTypeImageManifest)
		}
		page := bytes.Repeat([]byte(" "), 64<<10)
		for {
			n, err := w.Write(page)
			sent.Add(int64(n))
			if err != nil {
				return true
			}
		}
	}
}

func TestEndlessBodies(t *testing.T) {
	reg := NewRegistry(t)
	layer := NewLayer(t, Gzip, File("a", "a"))
	reg.Push(t, "app:1", layer)
	for _, part := range []string{"/manifests/", "/blobs/", layer.Digest().String(), "/token"} {
		var sent atomic.Int64
		answer := endless(part, &sent)
		if part == "/token" {
			body := answer
			answer = func(w http.ResponseWriter, r *http.Request) bool {
				return body(w, r) || (&tokens{}).answer(w, r)
			}
		}
		host := newFront(t, reg, "127.0.0.1:0", answer)
		_, err := all(t.Context(), newClient(t, reg.Config()), reference(t, host+"/app:1"), nil)
		if err == nil || sent.Load() > 64<<20 {
			t.Errorf("%s: %d bytes were taken, %v", part, sent.Load(), err)
		}
		silent(t, err)
	}
}

func TestSlowManifest(t *testing.T) {
	reg := NewRegistry(t)
	reg.Push(t, "app:1", NewLayer(t, Gzip, File("a", "a")))
	gate := make(chan struct{})
	defer close(gate)
	reg.Break(Fault{Path: "/manifests/", Gate: gate})
	c := reg.Config()
	c.Timeout, c.Attempts = 50*time.Millisecond, 2
	_, err := all(t.Context(), newClient(t, c), reference(t, reg.Ref("app:1")), nil)
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "did not answer within 50ms") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := all(ctx, newClient(t, c), reference(t, reg.Ref("app:1")), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("the caller's own end: %v", err)
	}
}

func TestWrongManifests(t *testing.T) {
	reg := NewRegistry(t)
	layer := NewLayer(t, Gzip, File("a", "a"))
	good := reg.Push(t, "app:1", layer)
	schema1 := `{"schemaVersion":1,"name":"app","tag":"1","architecture":"amd64","fsLayers":[{"blobSum":"sha256:` + strings.Repeat("a", 64) + `"}],"history":[{"v1Compatibility":"{}"}]}`
	here := v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: good, Size: 1, Platform: &v1.Platform{OS: "linux", Architecture: runtime.GOARCH}}
	inner := reg.PushIndex(t, "app:inner", here)
	for name, c := range map[string]struct {
		push  func() string
		class func(error) bool
	}{
		"schema 1": {func() string {
			reg.PushManifest(t, "old:1", "application/vnd.docker.distribution.manifest.v1+json", []byte(schema1))
			return "old:1"
		}, errdefs.IsNotImplemented},
		"index in an index": {func() string {
			reg.PushIndex(t, "app:nested", v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: inner, Size: 1, Platform: here.Platform})
			return "app:nested"
		}, errdefs.IsNotImplemented},
		"index without this machine": {func() string {
			other := here
			other.Platform = &v1.Platform{OS: "linux", Architecture: "mips64le"}
			reg.PushIndex(t, "app:s390x", other)
			return "app:s390x"
		}, errdefs.IsNotFound},
		"image that the index lists and nobody has": {func() string {
			reg.PushIndex(t, "app:gone", here)
			reg.Break(Fault{Path: good.String(), Status: 404})
			return "app:gone"
		}, errdefs.IsNotFound},
		"large": {func() string {
			reg.PushManifest(t, "app:large", v1.MediaTypeImageManifest, bytes.Repeat([]byte(" "), 5<<20))
			return "app:large"
		}, errdefs.IsResourceExhausted},
		"not JSON": {func() string {
			reg.PushManifest(t, "app:html", v1.MediaTypeImageManifest, []byte("<html>"))
			return "app:html"
		}, errdefs.IsInvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			defer reg.Heal()
			_, err := all(t.Context(), newClient(t, reg.Config()), reference(t, reg.Ref(c.push())), nil)
			t.Log(err)
			if !c.class(err) {
				t.Errorf("%v has class %v", err, errdefs.Resolve(err))
			}
			silent(t, err)
		})
	}
}

// The image for this machine is chosen from an index, and a tag is asked once:
// what moves later belongs to another pull.
func TestIndex(t *testing.T) {
	reg := NewRegistry(t)
	layer := NewLayer(t, Gzip, File("a", "a"))
	mine := reg.Push(t, "app", layer)
	other := reg.Push(t, "app:other", NewLayer(t, Gzip, File("b", "b")))
	list := reg.PushIndex(t, "app:1",
		v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: other, Size: 1, Platform: &v1.Platform{OS: "linux", Architecture: "mips"}},
		v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: mine, Size: 1, Platform: &v1.Platform{OS: "linux", Architecture: runtime.GOARCH}})
	for _, ref := range []string{"app:1", "app@" + list.String()} {
		c := newClient(t, reg.Config())
		img, err := c.Resolve(t.Context(), reference(t, reg.Ref(ref)), nil)
		if err != nil {
			t.Fatal(err)
		}
		if img.Digest != mine || img.IndexDigest != list || img.Index() == nil {
			t.Errorf("%s: digest %s, index %s", ref, img.Digest, img.IndexDigest)
		}
		if ref == "app:1" {
			reg.PushManifest(t, "app:1", v1.MediaTypeImageManifest, []byte(`{}`)) // moved
		}
		if _, err := img.Config(t.Context()); err != nil {
			t.Error(err)
		}
		img.Close()
	}
	reg.Break(Fault{Path: mine.String(), Flip: true})
	if _, err := newClient(t, reg.Config()).Resolve(t.Context(), reference(t, reg.Ref("app@"+list.String())), nil); !errors.Is(err, errdefs.ErrDataLoss) {
		t.Errorf("changed on the way: %v", err)
	}
}

// Mirrors are tried in their order before the registry itself; what a mirror
// serves has to be what the digest says.
func TestMirrors(t *testing.T) {
	a, b := NewRegistry(t), NewRegistry(t)
	layer := NewLayer(t, Gzip, File("a", "a"))
	d := b.Push(t, "copy/app:1", layer)
	a.Push(t, "team/app:1", layer)
	use := func(mirrors ...registry.Mirror) registry.Config {
		c := a.Config()
		c.Registries = []registry.Registry{{Prefix: "registry.example/team", Location: a.Host + "/team", Mirrors: mirrors}}
		return c
	}
	for name, tc := range map[string]struct {
		config   registry.Config
		ref      string
		asked    *Registry
		notAsked *Registry
		class    func(error) bool
	}{
		"mirror":           {use(registry.Mirror{Location: b.Host + "/copy"}), "registry.example/team/app:1", b, a, nil},
		"mirror is down":   {use(registry.Mirror{Location: "127.0.0.1:1/copy"}), "registry.example/team/app:1", a, b, nil},
		"mirror lacks it":  {use(registry.Mirror{Location: b.Host + "/empty"}), "registry.example/team/app:1", a, nil, nil},
		"moved":            {use(), "registry.example/team/app:1", a, b, nil},
		"by digest":        {use(registry.Mirror{Location: b.Host + "/copy"}), "registry.example/team/app@" + d.String(), b, a, nil},
		"prefix ends here": {use(registry.Mirror{Location: b.Host + "/copy"}), "registry.example.org/team/app:1", nil, b, isError},
	} {
		t.Run(name, func(t *testing.T) {
			before, beforeNot := 0, 0
			if tc.asked != nil {
				before = tc.asked.Count("GET", "/blobs/")
			}
			if tc.notAsked != nil {
				beforeNot = tc.notAsked.Count("GET", "/blobs/")
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			tc.config.Attempts = 1
			_, err := all(ctx, newClient(t, tc.config), reference(t, tc.ref), nil)
			if tc.class != nil {
				if !tc.class(err) {
					t.Errorf("got %v", err)
				}
			} else if err != nil || tc.asked.Count("GET", "/blobs/") == before {
				t.Errorf("blobs came from elsewhere, %v", err)
			}
			if tc.notAsked != nil && tc.notAsked.Count("GET", "/blobs/") != beforeNot {
				t.Error("blobs came from the wrong place")
			}
		})
	}
	blocked := a.Config()
	blocked.Registries = []registry.Registry{{Prefix: a.Host, Blocked: true}}
	before := len(a.Requests())
	if _, err := all(t.Context(), newClient(t, blocked), reference(t, a.Ref("team/app:1")), nil); err == nil || len(a.Requests()) != before {
		t.Errorf("blocked: %v", err)
	}
}
