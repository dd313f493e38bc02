package imagepull_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/coffer-cc/coffer/imagepull"
	. "github.com/coffer-cc/coffer/imagepull/imagepulltest"
	"github.com/coffer-cc/coffer/mount"
)

func TestPullRefuses(t *testing.T) {
	good := func(t *testing.T) Layer { return NewLayer(t, Gzip, File("a", strings.Repeat("abc", 20000))) }
	cases := []struct {
		name   string
		setup  func(t *testing.T, r *Registry, k *Keys, c *imagepull.Config) (ref string)
		class  func(error) bool
		text   string
		layers int // layers that may have been asked for
	}{
		{"401", func(t *testing.T, r *Registry, _ *Keys, _ *imagepull.Config) string {
			r.Push(t, "app:1", good(t))
			r.RequireAuth("u", "p")
			return "app:1"
		}, errdefs.IsUnauthorized, "unauthorized", 0},
		{"404", func(t *testing.T, r *Registry, _ *Keys, _ *imagepull.Config) string {
			return "nothing:1"
		}, errdefs.IsNotFound, "not found", 0},
		{"404 without JSON", func(t *testing.T, r *Registry, _ *Keys, _ *imagepull.Config) string {
			r.Break(Fault{Path: "/manifests/", Status: 404})
			return "nothing:1"
		}, errdefs.IsNotFound, "not found", 0},
		{"403", func(t *testing.T, r *Registry, _ *Keys, _ *imagepull.Config) string {
			r.Break(Fault{Path: "/manifests/", Status: 403})
			return "nothing:1"
		}, errdefs.IsPermissionDenied, "forbidden", 0},
		{"500", func(t *testing.T, r *Registry, _ *Keys, _ *imagepull.Config) string {
			r.Break(Fault{Path: "/manifests/", Status: 500})
			return "app:1"
		}, errdefs.IsUnavailable, "unavailable (500)", 0},
		{"500 on a layer", func(t *testing.T, r *Registry, _ *Keys, _ *imagepull.Config) string {
			l := good(t)
			r.Push(t, "app:1", l)
			r.Break(Fault{Path: l.Digest().String(), Status: 500})
			return "app:1"
		}, errdefs.IsUnavailable, "unavailable (500)", 4},
		{"unknown authority", func(t *testing.T, r *Registry, _ *Keys, c *imagepull.Config) string {
			r.Push(t, "app:1", good(t))
			c.Registry.Roots = nil
			return "app:1"
		}, errdefs.IsFailedPrecondition, "certificate", 0},
		{"truncated layer", func(t *testing.T, r *Registry, _ *Keys, _ *imagepull.Config) string {
			l := good(t)
			r.Push(t, "app:1", l)
			r.Break(Fault{Path: l.Digest().String(), Short: 10})
			return "app:1"
		}, isDataLoss, "bytes, the descriptor says", 4},
		{"wrong layer digest", func(t *testing.T, r *Registry, _ *Keys, _ *imagepull.Config) string {
			l := good(t)
			r.Push(t, "app:1", l)
			r.Break(Fault{Path: l.Digest().String(), Flip: true})
			return "app:1"
		}, isDataLoss, "", 1},
		{"wrong plain layer digest", func(t *testing.T, r *Registry, _ *Keys, _ *imagepull.Config) string {
			// Behind the end of the archive, where only the digest can tell.
			l := LayerOf(t, Plain, append(Tar(t, File("a", "b")), make([]byte, 4096)...))
			r.Push(t, "app:1", l)
			r.Break(Fault{Path: l.Digest().String(), Flip: true})
			return "app:1"
		}, isDataLoss, "does not match its digest", 1},
		{"wrong manifest digest", func(t *testing.T, r *Registry, _ *Keys, _ *imagepull.Config) string {
			d := r.Push(t, "app:1", good(t))
			r.Break(Fault{Path: "/manifests/", Flip: true})
			return "app@" + d.String()
		}, isDataLoss, "digest", 0},
		{"wrong diff id", func(t *testing.T, r *Registry, _ *Keys, _ *imagepull.Config) string {
			l := good(t)
			l.DiffID = NewLayer(t, Plain).DiffID
			r.Push(t, "app:1", l)
			return "app:1"
		}, isDataLoss, "diff id", 1},
		{"unknown key", func(t *testing.T, r *Registry, k *Keys, c *imagepull.Config) string {
			r.Push(t, "app:1", good(t))
			r.Encrypt(t, "app:1", "app:enc", NewKeys(), "default/key/other")
			return "app:enc"
		}, errdefs.IsNotFound, "kbs:///default/key/other", 0},
		{"broker refuses", func(t *testing.T, r *Registry, k *Keys, c *imagepull.Config) string {
			r.Push(t, "app:1", good(t))
			r.Encrypt(t, "app:1", "app:enc", k, "default/key/1")
			k.Refuse(errdefs.ErrPermissionDenied)
			return "app:enc"
		}, errdefs.IsPermissionDenied, "kbs:///default/key/1", 0},
		{"broker is down", func(t *testing.T, r *Registry, k *Keys, c *imagepull.Config) string {
			r.Push(t, "app:1", good(t))
			r.Encrypt(t, "app:1", "app:enc", k, "default/key/1")
			k.Refuse(fmt.Errorf("connect to the key broker: %w", errdefs.ErrUnavailable))
			return "app:enc"
		}, errdefs.IsUnavailable, "get key kbs:///default/key/1: connect to the key broker", 0},
		{"HMAC", func(t *testing.T, r *Registry, k *Keys, c *imagepull.Config) string {
			r.Push(t, "app:1", good(t))
			r.Encrypt(t, "app:1", "app:enc", k, "default/key/1")
			return tamper(t, r, "app:enc")
		}, isDataLoss, "HMAC is wrong", 1},
		{"wrong key", func(t *testing.T, r *Registry, k *Keys, c *imagepull.Config) string {
			r.Push(t, "app:1", good(t))
			r.Encrypt(t, "app:1", "app:enc", k, "default/key/1")
			k.Put("default/key/1", make([]byte, 32))
			return "app:enc"
		}, errdefs.IsPermissionDenied, "wrapped with another key", 0},
		{"no broker", func(t *testing.T, r *Registry, k *Keys, c *imagepull.Config) string {
			r.Push(t, "app:1", good(t))
			r.Encrypt(t, "app:1", "app:enc", k, "default/key/1")
			c.Keys = nil
			return "app:enc"
		}, errdefs.IsFailedPrecondition, "no key broker", 0},
		{"unsigned", func(t *testing.T, r *Registry, k *Keys, c *imagepull.Config) string {
			r.Push(t, "app:1", good(t))
			r.Push(t, "other:1", good(t))
			c.Policy = Policy(r.Sign(t, "other:1"))
			return "app:1"
		}, errdefs.IsPermissionDenied, "refused by the image policy", 0},
		{"signed by another key", func(t *testing.T, r *Registry, k *Keys, c *imagepull.Config) string {
			r.Push(t, "app:1", good(t))
			r.Sign(t, "app:1")
			r.Push(t, "app:2", NewLayer(t, Gzip, File("b", "")))
			c.Policy = Policy(r.Sign(t, "app:2"))
			return "app:1"
		}, errdefs.IsPermissionDenied, "refused by the image policy", 0},
		{"no policy on a TEE", func(t *testing.T, r *Registry, k *Keys, c *imagepull.Config) string {
			r.Push(t, "app:1", good(t))
			c.RequirePolicy = true
			return "app:1"
		}, errdefs.IsFailedPrecondition, "no image policy", 0},
		{"policy cannot be fetched", func(t *testing.T, r *Registry, k *Keys, c *imagepull.Config) string {
			r.Push(t, "app:1", good(t))
			c.PolicyURI = "kbs:///default/security-policy/test"
			return "app:1"
		}, errdefs.IsNotFound, "read image policy", 0},
		{"media type", func(t *testing.T, r *Registry, k *Keys, c *imagepull.Config) string {
			l := good(t)
			l.MediaType = "application/vnd.oci.image.layer.v1.tar+xz"
			r.Push(t, "app:1", l)
			return "app:1"
		}, errdefs.IsNotImplemented, "media type", 0},
		{"layer of the wrong form", func(t *testing.T, r *Registry, k *Keys, c *imagepull.Config) string {
			l := good(t)
			l.MediaType = NewLayer(t, Zstd).MediaType
			r.Push(t, "app:1", l)
			return "app:1"
		}, isDataLoss, "magic number", 1},
		{"reference", func(t *testing.T, r *Registry, k *Keys, c *imagepull.Config) string {
			return "APP:1"
		}, errdefs.IsInvalidArgument, "reference", 0},
		{"room", func(t *testing.T, r *Registry, k *Keys, c *imagepull.Config) string {
			c.WorkDir = smallTmpfs(t)
			r.Push(t, "app:1", NewLayer(t, Plain, File("a", strings.Repeat("x", 3<<20))))
			return "app:1"
		}, errdefs.IsResourceExhausted, "bytes are needed", 0},
		{"room for the unpacked", func(t *testing.T, r *Registry, k *Keys, c *imagepull.Config) string {
			c.WorkDir = smallTmpfs(t)
			r.Push(t, "app:1", NewLayer(t, Gzip, File("a", strings.Repeat("x", 3<<20))))
			return "app:1"
		}, errdefs.IsResourceExhausted, "is full", 1},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r, keys := NewRegistry(t), NewKeys()
			var ref, work string
			p := newPuller(t, r, func(cfg *imagepull.Config) {
				cfg.Keys = keys
				ref = c.setup(t, r, keys, cfg)
				work = cfg.WorkDir
			})
			before := r.Count("GET", "/blobs/")
			_, err := p.Pull(t.Context(), r.Ref(ref), "c1")
			if err == nil {
				t.Fatal("no error")
			}
			t.Log(err)
			nothingLeft(t, work)
			if c.layers > 0 && !strings.Contains(err.Error(), "layer 1 of "+r.Ref(ref)) {
				t.Errorf("error does not name the layer: %v", err)
			}
			if pr := p.Progress(); c.name != "reference" && (len(pr) != 1 || pr[0].Phase != imagepull.PhaseFailed) {
				t.Errorf("progress %+v", pr)
			}
			if !c.class(err) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("error %q has class %v", err, errdefs.Resolve(err))
			}
			if len(err.Error()) > 600 || strings.Contains(err.Error(), "\n") {
				t.Errorf("error is no line: %q", err)
			}
			// One more blob than layers is the configuration.
			if n := r.Count("GET", "/blobs/") - before; n > c.layers+1 {
				t.Errorf("%d blobs fetched: %q", n, r.Requests())
			}
		})
	}
}

// tamper changes a byte of an image's encrypted layer, with digests that fit, as
// somebody can who may write to the registry and has no key.
func tamper(t *testing.T, r *Registry, ref string) string {
	t.Helper()
	name, _, _ := strings.Cut(ref, ":")
	raw, mediaType := r.Manifest(t, ref)
	var m v1.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	blob := bytes.Clone(r.Blob(t, name, m.Layers[0].Digest))
	blob[len(blob)-1] ^= 1
	d := r.PushBlob(t, name, m.Layers[0].MediaType, blob)
	m.Layers[0].Digest = d.Digest
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	r.PushManifest(t, name+":tampered", mediaType, raw)
	return name + ":tampered"
}

// nothingLeft looks for what a pull that failed might leave.
func nothingLeft(t *testing.T, work string) {
	t.Helper()
	if left, err := mount.Table(filepath.Join(work, "containers")); err != nil || len(left) > 0 {
		t.Errorf("mounts left: %v, %v", left, err)
	}
	for _, dir := range []string{"containers", "staging", "layers"} {
		if left, err := os.ReadDir(filepath.Join(work, dir)); err != nil || len(left) > 0 {
			t.Errorf("left in %s: %v, %v", dir, left, err)
		}
	}
}

// Layers of a pull that failed are nobody's: they go when another image needs
// the room, and the next pull of the same image gets what is left of them.
func TestFailedPullKeepsNoRoom(t *testing.T) {
	r := NewRegistry(t)
	half := func(name string) Layer { return NewLayer(t, Plain, File(name, strings.Repeat(name, 600<<10))) }
	a, b, c := half("a"), half("b"), half("c")
	r.Push(t, "broken:1", a, NewLayer(t, Plain, File("x", "x")))
	r.Push(t, "app:1", b)
	r.Push(t, "full:1", b, c)
	p := newPuller(t, r, func(cfg *imagepull.Config) { cfg.WorkDir, cfg.Layers = smallTmpfs(t), 1 })
	r.Break(Fault{Path: NewLayer(t, Plain, File("x", "x")).Digest().String(), Status: 404})
	if _, err := p.Pull(t.Context(), r.Ref("broken:1"), "c1"); !errdefs.IsNotFound(err) {
		t.Fatalf("got %v", err)
	}
	img, err := p.Pull(t.Context(), r.Ref("app:1"), "c1")
	if err != nil {
		t.Fatalf("the failed pull holds room: %v", err)
	}
	// What another container uses stays, and a pull that finds no room for the
	// rest harms it in nothing.
	if _, err := p.Pull(t.Context(), r.Ref("full:1"), "c2"); !errdefs.IsResourceExhausted(err) || !strings.Contains(err.Error(), "bytes are needed") {
		t.Errorf("got %v", err)
	}
	if len(read(t, img.Rootfs, "b")) != 600<<10 {
		t.Error("the running container lost its files")
	}
	if err := p.Release(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Pull(t.Context(), r.Ref("app:1"), "c3"); err != nil {
		t.Errorf("after release: %v", err)
	}
}

// smallTmpfs mounts 1 MiB, gone with the test.
func smallTmpfs(t *testing.T) string {
	dir := t.TempDir()
	if err := mount.Do(mount.Request{Source: "tmpfs", FSType: "tmpfs", Options: mount.Options{Data: "size=1m"}}, dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mount.UnmountLazy(dir) })
	return filepath.Join(dir, "work")
}

// isDataLoss looks for the class itself: the library's own predicate does not
// see through an error that wraps two.
func isDataLoss(err error) bool { return errors.Is(err, errdefs.ErrDataLoss) }
func TestPullAfterFailure(t *testing.T) {
	r := NewRegistry(t)
	a, b := NewLayer(t, Gzip, File("a", "a")), NewLayer(t, Gzip, File("b", "b"))
	r.Push(t, "app:1", a, b)
	r.Break(Fault{Path: b.Digest().String(), Status: 404})
	p := newPuller(t, r, func(c *imagepull.Config) { c.Layers = 1 })
	if _, err := p.Pull(t.Context(), r.Ref("app:1"), "c1"); !errdefs.IsNotFound(err) {
		t.Fatalf("got %v", err)
	}
	r.Heal()
	img, err := p.Pull(t.Context(), r.Ref("app:1"), "c1")
	if err != nil {
		t.Fatal(err)
	}
	if read(t, img.Rootfs, "a")+read(t, img.Rootfs, "b") != "ab" {
		t.Error("wrong contents")
	}
	if n := r.Count("GET", a.Digest().String()); n != 1 {
		t.Errorf("the good layer was fetched %d times", n)
	}
}
