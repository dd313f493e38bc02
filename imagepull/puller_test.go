package imagepull_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/imagepull"
	. "github.com/coffer-cc/coffer/imagepull/imagepulltest"
	"github.com/coffer-cc/coffer/mount"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	os.Exit(m.Run())
}

// newPuller returns a Puller for the registry that is closed with the test,
// which then fails if mounts or descriptors are left.
func newPuller(t testing.TB, r *Registry, change func(*imagepull.Config)) *imagepull.Puller {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting an overlay needs root")
	}
	c := imagepull.Config{WorkDir: t.TempDir(), Registry: r.Config(), Timeout: time.Minute}
	c.Registry.Backoff = time.Millisecond
	if change != nil {
		change(&c)
	}
	p, err := imagepull.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(context.Background()); err != nil {
			t.Errorf("close: %v", err)
		}
		if left, err := mount.Table(c.WorkDir); err != nil || len(left) > 0 {
			t.Errorf("mounts left: %v %v", left, err)
		}
		for _, d := range []string{"staging", "containers", "private"} {
			if left, _ := os.ReadDir(filepath.Join(c.WorkDir, d)); len(left) > 0 {
				t.Errorf("left in %s: %v", d, left)
			}
		}
	})
	return p
}

func read(t testing.TB, parts ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func exists(parts ...string) bool {
	_, err := os.Lstat(filepath.Join(parts...))
	return err == nil
}

// twoLayers is an image whose upper layer changes, adds and deletes.
func twoLayers(t testing.TB, compression string) []Layer {
	return []Layer{
		NewLayer(t, compression, Dir("etc", 0o755), File("etc/a", "old"), File("etc/gone", "x"), Dir("tmp", 0o1777)),
		NewLayer(t, compression, File("etc/a", "new"), File("etc/.wh.gone", ""), File("tmp/b", "b")),
	}
}

func TestPull(t *testing.T) {
	cases := []struct {
		name        string
		compression string
		encrypted   bool
		signed      bool
	}{
		{name: "plain", compression: Plain},
		{name: "gzip", compression: Gzip},
		{name: "zstd", compression: Zstd},
		{name: "encrypted plain", compression: Plain, encrypted: true},
		{name: "encrypted gzip", compression: Gzip, encrypted: true},
		{name: "encrypted zstd", compression: Zstd, encrypted: true},
		{name: "signed", compression: Gzip, signed: true},
		{name: "encrypted and signed", compression: Gzip, encrypted: true, signed: true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r, keys := NewRegistry(t), NewKeys()
			want := r.Push(t, "app:1", twoLayers(t, c.compression)...)
			ref := "app:1"
			if c.encrypted {
				r.Encrypt(t, "app:1", "app:enc", keys, "default/key/1")
				ref = "app:enc"
			}
			var policy []byte
			if c.signed {
				policy = Policy(r.Sign(t, ref))
			}
			p := newPuller(t, r, func(cfg *imagepull.Config) {
				cfg.Keys, cfg.Policy, cfg.RequirePolicy = keys, policy, c.signed
			})
			img, err := p.Pull(t.Context(), r.Ref(ref), "c1")
			if err != nil {
				t.Fatal(err)
			}
			if !c.encrypted && img.ManifestDigest != want.String() {
				t.Errorf("digest %s, want %s", img.ManifestDigest, want)
			}
			if got := read(t, img.Rootfs, "etc/a"); got != "new" {
				t.Errorf("etc/a is %q", got)
			}
			if exists(img.Rootfs, "etc/gone") {
				t.Error("deleted file is visible")
			}
			if st, err := os.Stat(filepath.Join(img.Rootfs, "tmp")); err != nil || st.Mode()&os.ModeSticky == 0 || st.Mode().Perm() != 0o777 {
				t.Errorf("tmp: %v %v", st.Mode(), err)
			}
			if got := img.Config.Config.Entrypoint; len(got) != 1 || got[0] != "/bin/sh" {
				t.Errorf("entrypoint %q", got)
			}
			if err := os.WriteFile(filepath.Join(img.Rootfs, "etc/c"), []byte("w"), 0o644); err != nil {
				t.Error(err)
			}
			pr := p.Progress()
			if len(pr) != 1 || pr[0].Phase != imagepull.PhaseDone || pr[0].Bytes != pr[0].Total || pr[0].LayersDone != 2 {
				t.Errorf("progress %+v", pr)
			}
			if err := p.Release(t.Context(), "c1"); err != nil {
				t.Fatal(err)
			}
			if exists(img.Rootfs) {
				t.Error("root file system is left")
			}
			if err := p.Release(t.Context(), "c1"); err != nil {
				t.Errorf("second release: %v", err)
			}
		})
	}
}

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
			var ref string
			p := newPuller(t, r, func(cfg *imagepull.Config) {
				cfg.Keys = keys
				ref = c.setup(t, r, keys, cfg)
			})
			before := r.Count("GET", "/blobs/")
			_, err := p.Pull(t.Context(), r.Ref(ref), "c1")
			if err == nil {
				t.Fatal("no error")
			}
			t.Log(err)
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

// smallTmpfs mounts 1 MiB, gone with the test.
func smallTmpfs(t *testing.T) string {
	dir := t.TempDir()
	if err := mount.Do(mount.Request{Source: "tmpfs", FSType: "tmpfs", Options: mount.Options{Data: "size=1m"}}, dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mount.UnmountLazy(dir) })
	return filepath.Join(dir, "work")
}

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

func TestRetryJoins(t *testing.T) {
	r := NewRegistry(t)
	l := NewLayer(t, Plain, File("a", strings.Repeat("x", 1<<20)))
	r.Push(t, "app:1", l)
	gate, reached := make(chan struct{}), make(chan struct{})
	r.Break(Fault{Path: l.Digest().String(), Cut: 1000, Gate: gate, Reached: reached})
	p := newPuller(t, r, nil)

	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error)
	go func() {
		_, err := p.Pull(ctx, r.Ref("app:1"), "c1")
		first <- err
	}()
	<-reached
	cancel()
	err := <-first
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "goes on") || !strings.Contains(err.Error(), "of 10") {
		t.Errorf("first caller: %v", err)
	}
	second := make(chan error)
	var rootfs string
	go func() {
		img, err := p.Pull(t.Context(), r.Ref("app:1"), "c1")
		rootfs = img.Rootfs
		second <- err
	}()
	close(gate)
	if err := <-second; err != nil {
		t.Fatal(err)
	}
	if len(read(t, rootfs, "a")) != 1<<20 {
		t.Error("wrong contents")
	}
	if n := r.Count("GET", l.Digest().String()); n != 1 {
		t.Errorf("layer was fetched %d times", n)
	}
}

func TestBrokenConnectionIsPickedUp(t *testing.T) {
	r := NewRegistry(t)
	l := NewLayer(t, Plain, File("a", strings.Repeat("x", 1<<20)))
	r.Push(t, "app:1", l)
	r.Break(Fault{Path: l.Digest().String(), Cut: 500_000, Times: 1})
	p := newPuller(t, r, nil)
	img, err := p.Pull(t.Context(), r.Ref("app:1"), "c1")
	if err != nil {
		t.Fatal(err)
	}
	if len(read(t, img.Rootfs, "a")) != 1<<20 {
		t.Error("wrong contents")
	}
}

func TestStalledConnectionIsPickedUp(t *testing.T) {
	r := NewRegistry(t)
	l := NewLayer(t, Plain, File("a", strings.Repeat("x", 1<<20)))
	r.Push(t, "app:1", l)
	gate := make(chan struct{})
	defer close(gate)
	r.Break(Fault{Path: l.Digest().String(), Cut: 500_000, Times: 1, Gate: gate})
	p := newPuller(t, r, func(c *imagepull.Config) { c.Registry.Stall = 50 * time.Millisecond })
	img, err := p.Pull(t.Context(), r.Ref("app:1"), "c1")
	if err != nil {
		t.Fatal(err)
	}
	if len(read(t, img.Rootfs, "a")) != 1<<20 {
		t.Error("wrong contents")
	}
}

func TestPullTakesTooLong(t *testing.T) {
	r := NewRegistry(t)
	l := NewLayer(t, Plain, File("a", "a"))
	r.Push(t, "app:1", l)
	gate := make(chan struct{})
	defer close(gate)
	r.Break(Fault{Path: l.Digest().String(), Gate: gate})
	p := newPuller(t, r, func(c *imagepull.Config) { c.Timeout = 200 * time.Millisecond })
	_, err := p.Pull(t.Context(), r.Ref("app:1"), "c1")
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "phase fetch") {
		t.Errorf("got %v", err)
	}
}

func TestOneUnpackForManyContainers(t *testing.T) {
	r := NewRegistry(t)
	layers := twoLayers(t, Gzip)
	r.Push(t, "app:1", layers...)
	r.Push(t, "other:1", layers...)
	p := newPuller(t, r, nil)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			ref := r.Ref([]string{"app:1", "other:1"}[i%2])
			img, err := p.Pull(t.Context(), ref, string(rune('a'+i)))
			if err != nil {
				t.Error(err)
			} else if read(t, img.Rootfs, "etc/a") != "new" {
				t.Error("wrong contents")
			}
		})
	}
	wg.Wait()
	for _, l := range layers {
		if n := r.Count("GET", l.Digest().String()); n != 1 {
			t.Errorf("layer was fetched %d times", n)
		}
	}
}

func TestOwnersDoNotSeeEachOther(t *testing.T) {
	r := NewRegistry(t)
	r.Push(t, "app:1", NewLayer(t, Gzip, File("a", "a")))
	r.Push(t, "app:2", NewLayer(t, Gzip, File("a", "2")))
	p := newPuller(t, r, nil)
	one, err := p.Pull(t.Context(), r.Ref("app:1"), "one")
	if err != nil {
		t.Fatal(err)
	}
	two, err := p.Pull(t.Context(), r.Ref("app:1"), "../two")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(one.Rootfs, "a"), []byte("changed"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := read(t, two.Rootfs, "a"); got != "a" {
		t.Errorf("other owner reads %q", got)
	}
	again, err := p.Pull(t.Context(), r.Ref("app:1"), "one")
	if err != nil || again.Rootfs != one.Rootfs || read(t, again.Rootfs, "a") != "changed" {
		t.Errorf("second pull: %+v %v", again, err)
	}
	if _, err := p.Pull(t.Context(), r.Ref("app:2"), "one"); !errdefs.IsAlreadyExists(err) {
		t.Errorf("another image for the same owner: %v", err)
	}
}

func TestRepeatedLayerCountsOnTop(t *testing.T) {
	r := NewRegistry(t)
	a, b := NewLayer(t, Gzip, File("f", "a")), NewLayer(t, Gzip, File("f", "b"))
	r.Push(t, "app:1", a, b, a)
	p := newPuller(t, r, nil)
	img, err := p.Pull(t.Context(), r.Ref("app:1"), "c1")
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, img.Rootfs, "f"); got != "a" {
		t.Errorf("f is %q", got)
	}
	if n := r.Count("GET", a.Digest().String()); n != 1 {
		t.Errorf("layer was fetched %d times", n)
	}
}

// A layer that is in the store already opens nothing: each pull asks for the
// key, and an image that merely claims the same contents gets nothing.
func TestCachedEncryptedLayer(t *testing.T) {
	r, keys := NewRegistry(t), NewKeys()
	l := NewLayer(t, Gzip, File("secret", "s"))
	r.Push(t, "app:1", l)
	r.Encrypt(t, "app:1", "app:enc", keys, "default/key/1")
	p := newPuller(t, r, func(c *imagepull.Config) { c.Keys = keys })
	if _, err := p.Pull(t.Context(), r.Ref("app:enc"), "c1"); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Pull(t.Context(), r.Ref("app:enc"), "c2"); err != nil {
		t.Fatal(err)
	}
	if n := keys.Asked("default/key/1"); n != 2 {
		t.Errorf("key was asked for %d times", n)
	}
	keys.Refuse(errdefs.ErrPermissionDenied)
	if _, err := p.Pull(t.Context(), r.Ref("app:enc"), "c3"); !errdefs.IsPermissionDenied(err) {
		t.Errorf("after the broker refuses: %v", err)
	}
	claim := NewLayer(t, Gzip, File("other", "o"))
	claim.DiffID = l.DiffID
	r.Push(t, "evil:1", claim)
	if _, err := p.Pull(t.Context(), r.Ref("evil:1"), "c4"); !isDataLoss(err) {
		t.Errorf("claimed diff id: %v", err)
	}
}

func TestCredentials(t *testing.T) {
	r, keys := NewRegistry(t), NewKeys()
	r.Push(t, "team/app:1", NewLayer(t, Gzip, File("a", "a")))
	r.RequireAuth("user", "pass:word")
	auth := func(password string) []byte {
		return []byte(`{"auths":{"` + r.Host + `/team":{"username":"user","password":"` + password + `"}},"credsStore":"evil"}`)
	}
	keys.Put("default/credential/test", auth("old"))
	p := newPuller(t, r, func(c *imagepull.Config) {
		c.Keys, c.CredentialsURI = keys, "kbs:///default/credential/test"
	})
	if _, err := p.Pull(t.Context(), r.Ref("team/app:1"), "c1"); !errdefs.IsUnauthorized(err) || strings.Contains(err.Error(), "old") {
		t.Errorf("old password: %v", err)
	}
	keys.Put("default/credential/test", auth("pass:word"))
	if _, err := p.Pull(t.Context(), r.Ref("team/app:1"), "c1"); err != nil {
		t.Errorf("new password: %v", err)
	}
}

func TestPlainHTTP(t *testing.T) {
	r := NewPlainRegistry(t)
	r.Push(t, "app:1", NewLayer(t, Gzip, File("a", "a")))
	if _, err := newPuller(t, r, nil).Pull(t.Context(), r.Ref("app:1"), "c1"); err != nil {
		t.Errorf("allowed: %v", err)
	}
	p := newPuller(t, r, func(c *imagepull.Config) { c.Registry.Registries = nil })
	if _, err := p.Pull(t.Context(), r.Ref("app:1"), "c1"); err == nil {
		t.Error("plain HTTP without permission")
	}
	if n := r.Count("GET", "/blobs/"); n != 2 {
		t.Errorf("%d blobs were fetched", n)
	}
}

func TestCloseEndsPulls(t *testing.T) {
	r := NewRegistry(t)
	l := NewLayer(t, Plain, File("a", "a"))
	r.Push(t, "app:1", l)
	gate, reached := make(chan struct{}), make(chan struct{})
	defer close(gate)
	r.Break(Fault{Path: l.Digest().String(), Gate: gate, Reached: reached})
	p := newPuller(t, r, nil)
	done := make(chan error)
	go func() {
		_, err := p.Pull(t.Context(), r.Ref("app:1"), "c1")
		done <- err
	}()
	<-reached
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-done; !errdefs.IsAborted(err) {
		t.Errorf("got %v", err)
	}
	if _, err := p.Pull(t.Context(), r.Ref("app:1"), "c1"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("after close: %v", err)
	}
}

// isDataLoss looks for the class itself: the library's own predicate does not
// see through an error that wraps two.
func isDataLoss(err error) bool { return errors.Is(err, errdefs.ErrDataLoss) }
