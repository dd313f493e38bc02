package signature_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	. "github.com/coffer-cc/coffer/imagepull/imagepulltest"
	"github.com/coffer-cc/coffer/imagepull/registry"
)

// signer makes simple signatures with Debian's skopeo and GnuPG.
type signer struct {
	home, fingerprint string
	public            []byte
}

func newSigner(t *testing.T, name string) *signer {
	t.Helper()
	for _, tool := range []string{"gpg", "gpgconf", "skopeo"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	home, err := os.MkdirTemp("", "gpg") // its socket's path has to be short
	if err != nil {
		t.Fatal(err)
	}
	s := &signer{home: home}
	t.Cleanup(func() {
		s.run(t, "gpgconf", "--kill", "all")
		os.RemoveAll(home)
	})
	s.run(t, "gpg", "--batch", "--passphrase", "", "--quick-gen-key", name+" <"+name+"@example.com>", "rsa2048", "sign")
	for line := range strings.Lines(s.run(t, "gpg", "--with-colons", "--list-keys")) {
		if f := strings.Split(line, ":"); f[0] == "fpr" && s.fingerprint == "" {
			s.fingerprint = f[9]
		}
	}
	s.public = []byte(s.run(t, "gpg", "--armor", "--export"))
	return s
}

func (s *signer) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "GNUPGHOME="+s.home)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
	return string(out)
}

// sign signs a manifest for a reference into the store.
func (s *signer) sign(t *testing.T, store, path string, manifest []byte, reference string) {
	t.Helper()
	dir := filepath.Join(store, path+"@"+strings.Replace(digest.FromBytes(manifest).String(), ":", "=", 1))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "manifest")
	if err := os.WriteFile(file, manifest, 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "signature-1")
	s.run(t, "skopeo", "standalone-sign", file, reference, s.fingerprint, "-o", out)
	s.run(t, "skopeo", "standalone-verify", file, reference, s.fingerprint, out)
}

// Simple signatures come from a store beside the registry, and count for the
// name that they were made for.
func TestSimpleSigning(t *testing.T) {
	s, stranger := newSigner(t, "owner"), newSigner(t, "stranger")
	r, store := NewRegistry(t), t.TempDir()
	for _, name := range []string{"app:1", "other:1", "bare:1", "damaged:1"} {
		r.Push(t, name, NewLayer(t, Gzip, File("a", name)))
	}
	manifest, _ := r.Manifest(t, "app:1")
	s.sign(t, store, "app", manifest, r.Ref("app:1"))
	other, _ := r.Manifest(t, "other:1")
	s.sign(t, store, "other", other, r.Ref("app:1"))
	damaged, _ := r.Manifest(t, "damaged:1")
	dir := filepath.Join(store, "damaged@"+strings.Replace(digest.FromBytes(damaged).String(), ":", "=", 1))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "signature-1"), []byte("no signature"), 0o600); err != nil {
		t.Fatal(err)
	}
	lookaside := func(c *registry.Config) {
		c.Lookaside = fmt.Appendf(nil, "default-docker:\n  lookaside: file://%s\n", store)
	}
	by := func(key []byte) string {
		return docker(`"":[{"type":"signedBy","keyType":"GPGKeys","keyData":` + quote(base64.StdEncoding.EncodeToString(key)) + `}]`)
	}
	for name, c := range map[string]struct {
		ref, policy string
		change      func(*registry.Config)
		accept      bool
	}{
		"signed":           {"app:1", by(s.public), lookaside, true},
		"by a stranger":    {"app:1", by(stranger.public), lookaside, false},
		"for another name": {"other:1", by(s.public), lookaside, false},
		"not signed":       {"bare:1", by(s.public), lookaside, false},
		"damaged":          {"damaged:1", by(s.public), lookaside, false},
		"no store":         {"app:1", by(s.public), nil, false},
		"no key":           {"app:1", by(nil), lookaside, false},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := verify(t, r, c.ref, c.policy, c.change)
			if c.accept != (err == nil) || err != nil && !errdefs.IsPermissionDenied(err) {
				t.Errorf("got %v", err)
			}
		})
	}
}
