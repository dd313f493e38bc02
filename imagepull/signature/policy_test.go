package signature_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/coffer-cc/coffer/imagepull/encrypt"
	. "github.com/coffer-cc/coffer/imagepull/imagepulltest"
	"github.com/coffer-cc/coffer/imagepull/registry"
	"github.com/coffer-cc/coffer/imagepull/signature"
)

// files answers for the URIs that a policy names.
type files map[string]string

func (f files) fetch(_ context.Context, uri string) ([]byte, error) {
	text, ok := f[uri]
	if !ok {
		return nil, fmt.Errorf("no %s here: %w", uri, errdefs.ErrNotFound)
	}
	return []byte(text), nil
}

// verify judges an image of the registry by a policy.
func verify(t *testing.T, r *Registry, ref, policy string, change func(*registry.Config)) (signature.Verdict, error) {
	t.Helper()
	p, err := signature.Load(t.Context(), []byte(policy), files{}.fetch)
	if err != nil {
		t.Fatalf("%s: %v", policy, err)
	}
	c := r.Config()
	c.Dir, c.Backoff = t.TempDir(), time.Millisecond
	if change != nil {
		change(&c)
	}
	client, err := registry.New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	named, err := registry.ParseReference(r.Ref(ref))
	if err != nil {
		t.Fatal(err)
	}
	img, err := client.Resolve(t.Context(), named, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	return p.Verify(t.Context(), img)
}

// docker is a policy that rejects all but what the scopes say.
func docker(scopes string) string {
	return `{"default":[{"type":"reject"}],"transports":{"docker":{` + scopes + `}}}`
}

func sigstore(member, value, identity string) string {
	text, _ := json.Marshal(value)
	if identity != "" {
		identity = `,"signedIdentity":` + identity
	}
	return fmt.Sprintf(`[{"type":"sigstoreSigned",%q:%s%s}]`, member, text, identity)
}

func TestVerify(t *testing.T) {
	r := NewRegistry(t)
	r.Push(t, "team/app:1", NewLayer(t, Gzip, File("a", "a")))
	r.Push(t, "team/other:1", NewLayer(t, Gzip, File("b", "b")))
	key, stranger := string(r.Sign(t, "team/app:1")), string(r.Sign(t, "team/other:1"))
	b64 := base64.StdEncoding.EncodeToString([]byte(key))
	file := filepath.Join(t.TempDir(), "key.pub")
	if err := os.WriteFile(file, []byte(key), 0o600); err != nil {
		t.Fatal(err)
	}
	repo := r.Ref("team/app")
	for name, c := range map[string]struct {
		policy string
		accept bool
	}{
		"accept anything":           {`{"default":[{"type":"insecureAcceptAnything"}]}`, true},
		"reject":                    {`{"default":[{"type":"reject"}]}`, false},
		"key as PEM":                {docker(`"":` + sigstore("keyData", key, "")), true},
		"key in base64":             {docker(`"":` + sigstore("keyData", b64, "")), true},
		"key in a file":             {docker(`"":` + sigstore("keyPath", file, "")), true},
		"one of two keys":           {docker(`"":[{"type":"sigstoreSigned","keyDatas":[` + quote(base64.StdEncoding.EncodeToString([]byte(stranger))) + `,` + quote(b64) + `]}]`), true},
		"another key":               {docker(`"":` + sigstore("keyData", stranger, "")), false},
		"both needed":               {docker(`"":[` + inner(sigstore("keyData", key, "")) + `,` + inner(sigstore("keyData", stranger, "")) + `]`), false},
		"scope of the host":         {docker(quote(r.Host) + `:` + sigstore("keyData", key, "")), true},
		"scope of the repository":   {docker(quote(repo) + `:` + sigstore("keyData", key, "")), true},
		"scope of the tag":          {docker(quote(repo+":1") + `:` + sigstore("keyData", key, "")), true},
		"scope of another":          {docker(quote(repo+"x") + `:` + sigstore("keyData", key, "")), false},
		"nearest scope counts":      {docker(quote(repo) + `:[{"type":"reject"}],"":[{"type":"insecureAcceptAnything"}]`), false},
		"other transport":           {`{"default":[{"type":"reject"}],"transports":{"oci":{"":[{"type":"insecureAcceptAnything"}]}}}`, false},
		"same repository":           {docker(`"":` + sigstore("keyData", key, `{"type":"matchRepository"}`)), true},
		"named repository":          {docker(`"":` + sigstore("keyData", key, `{"type":"exactRepository","dockerRepository":`+quote(repo)+`}`)), true},
		"another repository":        {docker(`"":` + sigstore("keyData", key, `{"type":"exactRepository","dockerRepository":"registry.example/app"}`)), false},
		"a tag that nobody signed":  {docker(`"":` + sigstore("keyData", key, `{"type":"matchExact"}`)), false},
		"renamed prefix":            {docker(`"":` + sigstore("keyData", key, `{"type":"remapIdentity","prefix":`+quote(r.Host)+`,"signedPrefix":"registry.example"}`)), false},
		"signed base layer is void": {docker(`"":[{"type":"signedBaseLayer","baseLayerIdentity":{"type":"matchExact"}}]`), false},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := verify(t, r, "team/app:1", c.policy, nil)
			if c.accept && err == nil {
				return
			}
			if c.accept || !errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), "refused by the image policy") ||
				!strings.Contains(err.Error(), repo+"@sha256:") || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func quote(s string) string { b, _ := json.Marshal(s); return string(b) }

func inner(list string) string { return strings.TrimSuffix(strings.TrimPrefix(list, "["), "]") }

// signed puts a signature manifest beside an image that holds what layers say.
func signed(t *testing.T, r *Registry, repo string, d digest.Digest, payload string, annotations map[string]string) {
	t.Helper()
	blob := r.PushBlob(t, repo, "application/vnd.dev.cosign.simplesigning.v1+json", []byte(payload))
	blob.Annotations = annotations
	m := v1.Manifest{MediaType: v1.MediaTypeImageManifest, Config: r.PushBlob(t, repo, v1.MediaTypeImageConfig, []byte("{}")), Layers: []v1.Descriptor{blob}}
	m.SchemaVersion = 2
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	r.PushManifest(t, repo+":"+strings.Replace(d.String(), ":", "-", 1)+".sig", v1.MediaTypeImageManifest, raw)
}

// copySignature puts the signature of one image beside another.
func copySignature(t *testing.T, r *Registry, from string, a digest.Digest, to string, b digest.Digest) {
	t.Helper()
	tag := func(d digest.Digest) string { return strings.Replace(d.String(), ":", "-", 1) + ".sig" }
	raw, mediaType := r.Manifest(t, from+":"+tag(a))
	var m v1.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	for _, d := range append(m.Layers, m.Config) {
		r.PushBlob(t, to, d.MediaType, r.Blob(t, from, d.Digest))
	}
	r.PushManifest(t, to+":"+tag(b), mediaType, raw)
}

func TestForgedSignatures(t *testing.T) {
	r := NewRegistry(t)
	good := r.Push(t, "app:1", NewLayer(t, Gzip, File("a", "a")))
	key := string(r.Sign(t, "app:1"))
	policy := docker(`"":` + sigstore("keyData", key, ""))
	image := func(name string) digest.Digest { return r.Push(t, name+":1", NewLayer(t, Gzip, File("a", name))) }
	payload := fmt.Sprintf(`{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, r.Ref("x"), good)
	const at = "dev.cosignproject.cosign/signature"
	for name, prepare := range map[string]func(repo string, d digest.Digest){
		"none":                    func(string, digest.Digest) {},
		"of another image":        func(repo string, d digest.Digest) { copySignature(t, r, "app", good, repo, d) },
		"no annotation":           func(repo string, d digest.Digest) { signed(t, r, repo, d, payload, nil) },
		"not base64":              func(repo string, d digest.Digest) { signed(t, r, repo, d, payload, map[string]string{at: "%%"}) },
		"no signature":            func(repo string, d digest.Digest) { signed(t, r, repo, d, payload, map[string]string{at: ""}) },
		"nonsense":                func(repo string, d digest.Digest) { signed(t, r, repo, d, payload, map[string]string{at: "AAAA"}) },
		"no payload":              func(repo string, d digest.Digest) { signed(t, r, repo, d, "", map[string]string{at: "AAAA"}) },
		"manifest is not JSON":    func(repo string, d digest.Digest) { raw(t, r, repo, d, "<html>") },
		"manifest is an index":    func(repo string, d digest.Digest) { raw(t, r, repo, d, `{"schemaVersion":2,"manifests":[]}`) },
		"manifest without layers": func(repo string, d digest.Digest) { raw(t, r, repo, d, `{"schemaVersion":2}`) },
	} {
		t.Run(name, func(t *testing.T) {
			repo := strings.ReplaceAll(name, " ", "-")
			repo = strings.ToLower(repo)
			prepare(repo, image(repo))
			_, err := verify(t, r, repo+":1", policy, nil)
			if !errdefs.IsPermissionDenied(err) {
				t.Errorf("got %v", err)
			}
		})
	}
	// The same bytes in another repository carry a signature for the first one.
	same := r.Push(t, "copied:1", NewLayer(t, Gzip, File("a", "a")))
	copySignature(t, r, "app", good, "copied", same)
	if _, err := verify(t, r, "copied:1", policy, nil); same != good || !errdefs.IsPermissionDenied(err) {
		t.Errorf("in another repository: %v", err)
	}
}

func raw(t *testing.T, r *Registry, repo string, d digest.Digest, text string) {
	t.Helper()
	r.PushManifest(t, repo+":"+strings.Replace(d.String(), ":", "-", 1)+".sig", v1.MediaTypeImageManifest, []byte(text))
}

// Failing to reach signatures is no verdict, but it lets nothing in.
func TestSignaturesOutOfReach(t *testing.T) {
	r := NewRegistry(t)
	r.Push(t, "app:1", NewLayer(t, Gzip, File("a", "a")))
	policy := docker(`"":` + sigstore("keyData", string(r.Sign(t, "app:1")), ""))
	for status, class := range map[int]func(error) bool{500: errdefs.IsUnavailable, 401: errdefs.IsUnauthorized, 403: errdefs.IsPermissionDenied, 404: errdefs.IsPermissionDenied} {
		r.Break(Fault{Path: ".sig", Status: status})
		if _, err := verify(t, r, "app:1", policy, nil); !class(err) {
			t.Errorf("%d: %v", status, err)
		}
		r.Heal()
	}
}

// A signature on an index covers the images that it lists; one on the image
// alone is as good; without either there is nothing.
func TestIndex(t *testing.T) {
	r := NewRegistry(t)
	key, err := encrypt.ParseKey(func() []byte { private, _, _ := encrypt.GenerateKey(); return private }())
	if err != nil {
		t.Fatal(err)
	}
	public, err := encrypt.PublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	policy := docker(`"":` + sigstore("keyData", string(public), ""))
	for name, want := range map[string]struct{ index, instance bool }{"index": {true, false}, "instance": {false, true}, "both": {true, true}, "neither": {}} {
		d := r.Push(t, name+":image", NewLayer(t, Gzip, File("a", name)))
		r.PushIndex(t, name+":1", v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: d, Size: 1, Platform: &v1.Platform{OS: "linux", Architecture: runtime.GOARCH}})
		for ref, sign := range map[string]bool{name + ":1": want.index, name + ":image": want.instance} {
			if !sign {
				continue
			}
			if _, err := encrypt.Sign(t.Context(), r.Docker(ref), key, encrypt.SignOptions{Remote: r.Remote()}); err != nil {
				t.Fatal(err)
			}
		}
		v, err := verify(t, r, name+":1", policy, nil)
		if accepted := want.index || want.instance; accepted != (err == nil) || v.Index != want.index || !accepted && !errdefs.IsPermissionDenied(err) {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	const accept = `[{"type":"insecureAcceptAnything"}]`
	for name, text := range map[string]string{
		"empty": ``, "no JSON": `{`, "list": `[]`, "no default": `{"transports":{}}`, "empty default": `{"default":[]}`, "null default": `{"default":null}`,
		"unknown member":   `{"default":` + accept + `,"evil":1}`,
		"twice":            `{"default":[{"type":"reject"}],"default":` + accept + `}`,
		"case twice":       `{"default":[{"type":"reject"}],"Default":` + accept + `}`,
		"text behind":      `{"default":` + accept + `} {}`,
		"unknown type":     `{"default":[{"type":"hope"}]}`,
		"no type":          `{"default":[{}]}`,
		"empty scope":      docker(`"":[]`),
		"scope twice":      docker(`"":` + accept + `,"":` + accept),
		"requirement more": docker(`"":[{"type":"reject","keyData":"x"}]`),
		"no key":           docker(`"":[{"type":"sigstoreSigned"}]`),
		"two keys":         docker(`"":[{"type":"sigstoreSigned","keyData":"eA==","keyPath":"/x"}]`),
		"key and URI":      docker(`"":[{"type":"sigstoreSigned","keyData":"eA==","keyPath":"kbs:///a/b/known"}]`),
		"URI and path":     docker(`"":[{"type":"sigstoreSigned","keyPaths":["kbs:///a/b/known","/x"]}]`),
		"unknown URI":      docker(`"":[{"type":"sigstoreSigned","keyPath":"kbs:///a/b/unknown"}]`),
		"identity":         docker(`"":[{"type":"sigstoreSigned","keyData":"eA==","signedIdentity":{"type":"anybody"}}]`),
		"transports list":  `{"default":` + accept + `,"transports":[]}`,
		"large":            `{"default":` + accept + strings.Repeat(" ", 1<<20) + `}`,
	} {
		if _, err := signature.Load(t.Context(), []byte(text), files{"kbs:///a/b/known": "key"}.fetch); !errdefs.IsInvalidArgument(err) && !errdefs.IsNotFound(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Keys may be kept by the broker and in files of the image; a fetch that fails
// fails the policy.
func TestKeysByURI(t *testing.T) {
	r := NewRegistry(t)
	r.Push(t, "app:1", NewLayer(t, Gzip, File("a", "a")))
	known := files{"kbs:///default/cosign/key": string(r.Sign(t, "app:1")), "file:///etc/key": string(r.Sign(t, "app:1"))}
	for uri := range known {
		for _, member := range []string{`"keyPath":` + quote(uri), `"keyPaths":[` + quote(uri) + `]`} {
			text := docker(`"":[{"type":"sigstoreSigned",` + member + `}]`)
			if _, err := signature.Load(t.Context(), []byte(text), known.fetch); err != nil {
				t.Errorf("%s: %v", member, err)
			}
			broken := func(context.Context, string) ([]byte, error) { return nil, errdefs.ErrUnavailable }
			if _, err := signature.Load(t.Context(), []byte(text), broken); !errors.Is(err, errdefs.ErrUnavailable) || !strings.Contains(err.Error(), uri) {
				t.Errorf("%s out of reach: %v", member, err)
			}
		}
	}
}

// FuzzLoad looks for a policy that is read but has no say: an empty list would
// accept everything in some readers.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(docker(`"a.example/b":[{"type":"sigstoreSigned","keyPath":"kbs:///a/b/known","signedIdentity":{"type":"matchRepository"}}]`)))
	f.Add([]byte(`{"default":[{"type":"insecureAcceptAnything"}],"transports":{"docker":{"":[{"type":"signedBy","keyType":"GPGKeys","keyData":"eA=="}]}}}`))
	f.Add([]byte(docker(`"":[{"type":"sigstoreSigned","fulcio":{"caPath":"file:///ca","oidcIssuer":"x","subjectEmail":"y"},"rekorPublicKeyPath":"file:///r"}]`)))
	known := files{"kbs:///a/b/known": "key", "file:///ca": "ca", "file:///r": "r"}
	f.Fuzz(func(t *testing.T, text []byte) {
		if _, err := signature.Load(t.Context(), text, known.fetch); err == nil && !strings.Contains(strings.ToLower(string(text)), "default") && !strings.Contains(string(text), `\u`) {
			t.Errorf("took %q", text)
		}
	})
}
