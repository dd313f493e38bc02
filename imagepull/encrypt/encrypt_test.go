package encrypt_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/coffer-cc/coffer/evidence/resource"
	"github.com/coffer-cc/coffer/evidence/secret"
	"github.com/coffer-cc/coffer/imagepull/decrypt"
	"github.com/coffer-cc/coffer/imagepull/encrypt"
	. "github.com/coffer-cc/coffer/imagepull/imagepulltest"
	"github.com/coffer-cc/coffer/imagepull/registry"
	"github.com/coffer-cc/coffer/imagepull/signature"
)

func keyID(t *testing.T) resource.URI {
	t.Helper()
	u, err := resource.Parse("kbs:///default/key/1")
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// resolve reads an image of the registry as the guest does.
func resolve(t *testing.T, r *Registry, ref string) *registry.Image {
	t.Helper()
	c := r.Config()
	c.Dir = t.TempDir()
	client, err := registry.New(c)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := registry.ParseReference(r.Ref(ref))
	if err != nil {
		t.Fatal(err)
	}
	img, err := client.Resolve(t.Context(), parsed, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { img.Close(); client.Close() })
	return img
}

func TestEncrypt(t *testing.T) {
	for _, c := range []struct {
		name string
		o    encrypt.Options
	}{
		{"defaults", encrypt.Options{}},
		{"version 2", encrypt.Options{Version2: true}},
		{"ctr", encrypt.Options{WrapType: decrypt.CTR}},
		{"provider", encrypt.Options{Provider: "mine"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, keys := NewRegistry(t), NewKeys()
			want := []Layer{NewLayer(t, Gzip, File("a", "a")), NewLayer(t, Zstd, File("b", "b")), NewLayer(t, Plain, File("c", "c"))}
			r.Push(t, "app:1", append(want, want[0])...)
			c.o.Key, c.o.KeyID, c.o.Remote = make(secret.Bytes, 32), keyID(t), r.Remote()
			rand.Read(c.o.Key)
			keys.Put("default/key/1", c.o.Key)
			d, err := encrypt.Encrypt(t.Context(), r.Docker("app:1"), r.Docker("app:enc"), c.o)
			if err != nil {
				t.Fatal(err)
			}
			img := resolve(t, r, "app:enc")
			if img.Digest != d {
				t.Errorf("wrote %s, found %s", d, img.Digest)
			}
			if len(img.Manifest.Layers) != 4 || img.Manifest.Layers[0].Digest != img.Manifest.Layers[3].Digest {
				t.Errorf("layers %v", img.Manifest.Layers)
			}
			for i, l := range want {
				d := img.Manifest.Layers[i]
				if mt, ok := decrypt.MediaType(d.MediaType); !ok || mt != l.MediaType {
					t.Errorf("layer %d has type %s", i, d.MediaType)
				}
				if got := open(t, img, d, keys); got != string(l.Blob) {
					t.Errorf("layer %d is not what it was", i)
				}
			}
		})
	}
}

func open(t *testing.T, img *registry.Image, d v1.Descriptor, keys decrypt.Keys) string {
	t.Helper()
	k, err := decrypt.Unwrap(t.Context(), keys, d)
	if err != nil {
		t.Fatal(err)
	}
	blob := img.Blob(t.Context(), d)
	defer blob.Close()
	r, err := k.Reader(blob)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(plain)
}

func TestEncryptIndexAndLayout(t *testing.T) {
	r := NewRegistry(t)
	l := NewLayer(t, Gzip, File("a", "a"))
	one := r.Push(t, "app:one", l)
	r.PushIndex(t, "app:1", v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: one, Size: sizeOf(t, r, "app:one"),
		Platform: &v1.Platform{OS: "linux", Architecture: Config().Architecture}})
	o := encrypt.Options{Key: make(secret.Bytes, 32), KeyID: keyID(t), Remote: r.Remote()}
	dir := "oci:" + filepath.Join(t.TempDir(), "layout")
	d, err := encrypt.Encrypt(t.Context(), r.Docker("app:1"), dir+":enc", o)
	if err != nil {
		t.Fatal(err)
	}
	again, err := encrypt.Encrypt(t.Context(), dir+":enc", r.Docker("copy:1"), o)
	if err != nil || again != d {
		t.Fatalf("copy of an encrypted image: %s, want %s, %v", again, d, err)
	}
	img := resolve(t, r, "copy:1")
	if img.IndexDigest != d {
		t.Errorf("index %s, want %s", img.IndexDigest, d)
	}
	keys := NewKeys()
	keys.Put("default/key/1", o.Key)
	if open(t, img, img.Manifest.Layers[0], keys) != string(l.Blob) {
		t.Error("layer is not what it was")
	}
	if _, err := encrypt.Encrypt(t.Context(), dir+":other", r.Docker("copy:1"), o); !errdefs.IsNotFound(err) {
		t.Errorf("missing tag: %v", err)
	}
}

func sizeOf(t *testing.T, r *Registry, ref string) int64 {
	raw, err := json.Marshal(resolve(t, r, ref).Manifest)
	if err != nil {
		t.Fatal(err)
	}
	return int64(len(raw))
}

func TestEncryptRefuses(t *testing.T) {
	r := NewRegistry(t)
	r.Push(t, "app:1", NewLayer(t, Gzip, File("a", "a")))
	good := encrypt.Options{Key: make(secret.Bytes, 32), KeyID: keyID(t), Remote: r.Remote()}
	short := good
	short.Key = short.Key[:16]
	nameless := good
	nameless.KeyID = resource.URI{}
	wrap := good
	wrap.WrapType = "none"
	for _, c := range []struct {
		name, src, dst string
		o              encrypt.Options
		class          func(error) bool
	}{
		{"short key", "app:1", "app:2", short, errdefs.IsInvalidArgument},
		{"no key id", "app:1", "app:2", nameless, errdefs.IsInvalidArgument},
		{"wrap type", "app:1", "app:2", wrap, errdefs.IsInvalidArgument},
		{"no image", "none:1", "app:2", good, errdefs.IsNotFound},
	} {
		if _, err := encrypt.Encrypt(t.Context(), r.Docker(c.src), r.Docker(c.dst), c.o); !c.class(err) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := encrypt.Encrypt(t.Context(), "app:1", r.Docker("app:2"), good); !errdefs.IsInvalidArgument(err) {
		t.Errorf("no transport: %v", err)
	}
}

func TestSignKeys(t *testing.T) {
	ec, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	rs, _ := rsa.GenerateKey(rand.Reader, 2048)
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	for name, key := range map[string]crypto.Signer{"ecdsa": ec, "rsa": rs, "ed25519": ed} {
		t.Run(name, func(t *testing.T) {
			r := NewRegistry(t)
			want := r.Push(t, "app:1", NewLayer(t, Gzip, File("a", "a")))
			// A second signature keeps the first.
			r.Sign(t, "app:1")
			d, err := encrypt.Sign(t.Context(), r.Docker("app:1"), key, encrypt.SignOptions{Remote: r.Remote()})
			if err != nil || d != want {
				t.Fatalf("signed %s, want %s, %v", d, want, err)
			}
			r.Sign(t, "app:1")
			public, err := encrypt.PublicKey(key)
			if err != nil {
				t.Fatal(err)
			}
			p, err := signature.Load(t.Context(), Policy(public), nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.Verify(t.Context(), resolve(t, r, "app:1")); err != nil {
				t.Error(err)
			}
		})
	}
}

// The same verdicts with the tool that other people use. Debian builds its
// skopeo without the verification, so there the finding of signatures is all
// that can be compared; TestOpenSSLAgrees has the rest.
func TestSkopeoAgrees(t *testing.T) {
	r := NewRegistry(t)
	r.Push(t, "app:1", NewLayer(t, Gzip, File("a", "a")))
	r.Push(t, "plain:1", NewLayer(t, Gzip, File("b", "b")))
	public := r.Sign(t, "app:1")
	_, other, err := encrypt.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, ref string
		key       []byte
		accepted  bool
	}{
		{"signed", "app:1", public, true},
		{"another key", "app:1", other, false},
		{"unsigned", "plain:1", public, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSkopeo(t, r, c.key)
			out, err := s.copy(c.ref, "--policy", s.policy)
			if strings.Contains(out, "sigstore disabled") {
				t.Skip("this skopeo is built without sigstore signatures")
			}
			if (err == nil) != c.accepted {
				t.Errorf("%v: %s", err, out)
			}
			if err != nil && !strings.Contains(out, "ignature") {
				t.Errorf("refused for another reason: %s", out)
			}
		})
	}
}

// skopeo finds our signature where it looks for those of cosign, and openssl
// verifies it over the payload.
func TestOpenSSLAgrees(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	r := NewRegistry(t)
	d := r.Push(t, "app:1", NewLayer(t, Gzip, File("a", "a")))
	s := newSkopeo(t, r, r.Sign(t, "app:1"))
	if out, err := s.copy("app:1", "--insecure-policy"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	raw, err := os.ReadFile(filepath.Join(s.dir, "out", "signature-1"))
	if err != nil {
		t.Fatal(err)
	}
	_, document, ok := strings.Cut(string(raw), "sigstore-json\n")
	var sig struct {
		Payload     []byte            `json:"payload"`
		Annotations map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal([]byte(document), &sig); !ok || err != nil {
		t.Fatalf("signature as skopeo keeps it: %q %v", raw, err)
	}
	if !strings.Contains(string(sig.Payload), d.String()) || !strings.Contains(string(sig.Payload), r.Ref("app")) {
		t.Errorf("payload %s", sig.Payload)
	}
	value, err := base64.StdEncoding.DecodeString(sig.Annotations["dev.cosignproject.cosign/signature"])
	if err != nil {
		t.Fatal(err)
	}
	payload, file := s.write("payload", string(sig.Payload)), s.write("value", string(value))
	out, err := exec.Command(openssl, "dgst", "-sha256", "-verify", s.key, "-signature", file, payload).CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// skopeo runs the tool with files of its own.
type skopeo struct {
	t                      *testing.T
	r                      *Registry
	path, dir, key, policy string
}

func newSkopeo(t *testing.T, r *Registry, public []byte) *skopeo {
	t.Helper()
	path, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("skopeo is not installed")
	}
	s := &skopeo{t: t, r: r, path: path, dir: t.TempDir()}
	s.key = s.write("key.pub", string(public))
	s.write("certs/ca.crt", r.CA)
	s.write("registries.d/all.yaml", "default-docker:\n  use-sigstore-attachments: true\n")
	s.policy = s.write("policy.json", `{"default":[{"type":"reject"}],"transports":{"docker":{"":[
		{"type":"sigstoreSigned","keyPath":"`+s.key+`","signedIdentity":{"type":"matchRepository"}}]}}}`)
	return s
}

func (s *skopeo) write(name, text string) string {
	p := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
	return p
}

// copy copies an image to the directory out.
func (s *skopeo) copy(ref string, flags ...string) (string, error) {
	args := append(flags, "--registries.d", filepath.Join(s.dir, "registries.d"),
		"copy", "--src-cert-dir", filepath.Join(s.dir, "certs"), s.r.Docker(ref), "dir:"+filepath.Join(s.dir, "out"))
	out, err := exec.Command(s.path, args...).CombinedOutput()
	return string(out), err
}

func TestSignLayout(t *testing.T) {
	r := NewRegistry(t)
	r.Push(t, "app:1", NewLayer(t, Gzip, File("a", "a")))
	dir := filepath.Join(t.TempDir(), "layout")
	o := encrypt.Options{Key: make(secret.Bytes, 32), KeyID: keyID(t), Remote: r.Remote()}
	d, err := encrypt.Encrypt(t.Context(), r.Docker("app:1"), "oci:"+dir, o)
	if err != nil {
		t.Fatal(err)
	}
	private, _, err := encrypt.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	key, err := encrypt.ParseKey(private)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := encrypt.Sign(t.Context(), "oci:"+dir, key, encrypt.SignOptions{}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("without an identity: %v", err)
	}
	for range 2 {
		signed, err := encrypt.Sign(t.Context(), "oci:"+dir, key, encrypt.SignOptions{Identity: "example.com/app"})
		if err != nil || signed != d {
			t.Fatalf("signed %s, want %s, %v", signed, d, err)
		}
	}
	raw, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	tag := strings.Replace(d.String(), ":", "-", 1) + ".sig"
	if n := strings.Count(string(raw), tag); n != 1 {
		t.Errorf("%d entries %s in %s", n, tag, raw)
	}
}

func TestParseKeyRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"empty":     "",
		"no key":    "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
		"encrypted": "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n",
	} {
		if _, err := encrypt.ParseKey([]byte(text)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
