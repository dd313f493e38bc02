package imagepull_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/coffer-cc/coffer/evidence/resource"
	"github.com/coffer-cc/coffer/evidence/secret"
	"github.com/coffer-cc/coffer/imagepull"
	"github.com/coffer-cc/coffer/imagepull/encrypt"
	. "github.com/coffer-cc/coffer/imagepull/imagepulltest"
)

// skopeo copies between places that it names as we do.
func skopeo(t *testing.T, r *Registry) func(src, dst string) {
	t.Helper()
	path, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("skopeo is not installed")
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"ca.crt": r.CA, "all.yaml": "default-docker:\n  use-sigstore-attachments: true\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return func(src, dst string) {
		t.Helper()
		cmd := exec.Command(path, "--insecure-policy", "--registries.d", dir, "copy", "--preserve-digests", "--src-cert-dir", dir, "--dest-cert-dir", dir, src, dst)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%q: %v: %s", cmd.Args, err, out)
		}
	}
}

// An image that we encrypted and signed is one that other tools copy, with its
// digest and its signature; and one that they wrote is one that we encrypt.
func TestSkopeoCopies(t *testing.T) {
	r, keys := NewRegistry(t), NewKeys()
	cp := skopeo(t, r)
	want := r.Push(t, "app:1", twoLayers(t, Gzip)...)
	r.Encrypt(t, "app:1", "app:enc", keys, "default/key/1")
	public := r.Sign(t, "app:enc")
	cp(r.Docker("app:enc"), r.Docker("app:copied"))
	p := newPuller(t, r, func(c *imagepull.Config) { c.Keys, c.Policy, c.RequirePolicy = keys, Policy(public), true })
	img, err := p.Pull(t.Context(), r.Ref("app:copied"), "c1")
	if err != nil {
		t.Fatal(err)
	}
	if img.ManifestDigest == want.String() || read(t, img.Rootfs, "etc/a") != "new" {
		t.Errorf("pulled %s", img.ManifestDigest)
	}

	layout := "oci:" + filepath.Join(t.TempDir(), "layout") + ":tag"
	cp(r.Docker("app:1"), layout)
	id, err := resource.ParsePath("default/key/2")
	if err != nil {
		t.Fatal(err)
	}
	key := make(secret.Bytes, 32)
	keys.Put(id.Path(), key)
	if _, err := encrypt.Encrypt(t.Context(), layout, r.Docker("other:enc"), encrypt.Options{Key: key, KeyID: id, Remote: r.Remote()}); err != nil {
		t.Fatal(err)
	}
	q := newPuller(t, r, func(c *imagepull.Config) { c.Keys = keys })
	if img, err = q.Pull(t.Context(), r.Ref("other:enc"), "c1"); err != nil || read(t, img.Rootfs, "etc/a") != "new" {
		t.Errorf("from a layout of skopeo's: %v", err)
	}
}
