package imagepull_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

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
