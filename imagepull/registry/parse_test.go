package registry

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestParseReference(t *testing.T) {
	sum := digest.FromString("x").String()
	for in, want := range map[string]string{
		"busybox":                                "docker.io/library/busybox:latest",
		"docker://busybox:1":                     "docker.io/library/busybox:1",
		"host:5000/app":                          "host:5000/app:latest",
		"localhost/app:1":                        "localhost/app:1",
		"index.docker.io/app:1":                  "docker.io/library/app:1",
		"host.example/a/b/c@" + sum:              "host.example/a/b/c@" + sum,
		"host.example/app:moved@" + sum:          "host.example/app@" + sum,
		"host.example/app@sha512:" + sha512of(t): "host.example/app@sha512:" + sha512of(t),
	} {
		r, err := ParseReference(in)
		if err != nil || r.String() != want {
			t.Errorf("%q: %v, %v", in, r.named, err)
		}
	}
	r, _ := ParseReference("host:1/app:moved@" + sum)
	if r.Host() != "host:1" || r.Repository() != "host:1/app" || r.OverruledTag() != "moved" {
		t.Errorf("parts %q %q %q", r.Host(), r.Repository(), r.OverruledTag())
	}
	for _, in := range []string{
		"", "APP", "host.example/app@sha256:abc", "host.example/app@md5:d41d8cd98f00b204e9800998ecf8427e", "host.example/app@" + strings.ToUpper(sum),
		"https://host/app", "host.example/app:a b", "host.example/../app", "host.example/app\x00", "-host/app", strings.Repeat("a/", 600), "[::1]:5000/app", "app?x=1",
	} {
		if r, err := ParseReference(in); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v, %v", in, r.named, err)
		}
	}
}

func sha512of(t *testing.T) string { t.Helper(); return digest.SHA512.FromString("x").Encoded() }

func FuzzParseReference(f *testing.F) {
	for _, s := range []string{"busybox", "host:5000/a/b:tag@sha256:" + strings.Repeat("a", 64), "docker://x", "[::1]/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseReference(s)
		if err != nil {
			return
		}
		again, err := ParseReference(r.String())
		if err != nil || again.String() != r.String() || r.Host() == "" || strings.ContainsAny(r.String(), " \"\\\x00\n") {
			t.Errorf("%q means %q, which means %v, %v", s, r.String(), again.named, err)
		}
	})
}

func TestAuthLookup(t *testing.T) {
	a, err := ParseAuth([]byte(`{"auths":{
		"host.example":{"username":"host","password":"p"},
		"host.example/team":{"auth":"dGVhbTpwYXNzOndvcmQ="},
		"https://index.docker.io/v1/":{"auth":"aHViOnBhc3MAAA=="},
		"other.example:5000/v2/":{"username":"v2"},
		"token.example":{"identitytoken":"idt"},
		"empty.example":{}
	},"credsStore":"evil","credHelpers":{"host.example":"evil"}}`))
	if err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]string{
		"host.example/app":           "host:p",
		"host.example/team/app":      "team:pass:word",
		"host.example/teams/app":     "host:p",
		"busybox":                    "hub:pass",
		"other.example:5000/app":     "v2:",
		"other.example/app":          "none",
		"evil.example/host.example":  "none",
		"host.example.evil.org/team": "none",
		"token.example/app":          ":",
		"empty.example/app":          ":",
	} {
		r, err := ParseReference(ref)
		if err != nil {
			t.Fatal(err)
		}
		got := "none"
		if c, ok := a.Lookup(r); ok {
			got = c.Username + ":" + c.Password
		}
		if got != want {
			t.Errorf("%s: %s, want %s", ref, got, want)
		}
	}
	if _, ok := (*Auth)(nil).Lookup(Reference{}); ok {
		t.Error("nobody has credentials")
	}
}

func TestParseAuthRefuses(t *testing.T) {
	for _, text := range []string{
		``, `[]`, `{"auths":[]}`, `{"auths":{"h":{"auth":"secret!"}}}`, `{"auths":{"h":{"auth":"c2VjcmV0"}}}`, `{"auths":{"h":{"password":7}}} secret`,
		strings.Repeat(" ", maxAuth+1),
	} {
		_, err := ParseAuth([]byte(text))
		if !errdefs.IsInvalidArgument(err) || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "c2Vj") {
			t.Errorf("%.40q: %v", text, err)
		}
	}
}

func FuzzParseAuth(f *testing.F) {
	f.Add([]byte(`{"auths":{"host/path":{"auth":"dGVhbTpwYXNz"},"https://index.docker.io/v1/":{"username":"u","password":"p"}}}`))
	r, _ := ParseReference("host/path/app")
	f.Fuzz(func(t *testing.T, raw []byte) {
		if a, err := ParseAuth(raw); err == nil {
			a.Lookup(r)
		}
	})
}

func TestCheckJSON(t *testing.T) {
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for _, text := range []string{`{}`, `[]`, `1`, `{"a":{"A":1,"a":2}}`, ` {"a":[1,{"b":null}]} `, deep(64), `1e999`} {
		if err := CheckJSON([]byte(text)); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, text := range []string{
		``, `{`, `{"a":1,"a":2}`, `{"a":1,"A":2}`, `{"x":{"a":1,"a":2}}`, `[{"a":1,"a":1}]`, `{}{}`, `{} x`, deep(66), `{"a"}`, `{"a":1,}`, "{\"a\":1,\"\\u0061\":2}",
	} {
		if err := CheckJSON([]byte(text)); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%.40q: %v", text, err)
		}
	}
}

// descriptor is valid for any kind of blob.
func descriptor(mediaType string) v1.Descriptor {
	return v1.Descriptor{MediaType: mediaType, Digest: digest.FromString(mediaType), Size: 7}
}

func manifest(change func(*v1.Manifest)) string {
	m := v1.Manifest{MediaType: v1.MediaTypeImageManifest, Config: descriptor(v1.MediaTypeImageConfig), Layers: []v1.Descriptor{descriptor(v1.MediaTypeImageLayerGzip)}}
	m.SchemaVersion = 2
	if change != nil {
		change(&m)
	}
	raw, _ := json.Marshal(m)
	return string(raw)
}

func index(entries ...v1.Descriptor) string {
	i := v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: entries}
	i.SchemaVersion = 2
	raw, _ := json.Marshal(i)
	return string(raw)
}

func TestParseDocumentRefuses(t *testing.T) {
	layer := func(change func(*v1.Descriptor)) string {
		return manifest(func(m *v1.Manifest) { change(&m.Layers[0]) })
	}
	var many []v1.Descriptor
	for range maxInstances + 1 {
		many = append(many, descriptor(v1.MediaTypeImageManifest))
	}
	for name, text := range map[string]string{
		"empty":           ``,
		"list":            `[]`,
		"schema 1":        `{"schemaVersion":1,"name":"x","tag":"y","fsLayers":[],"history":[],"signatures":[]}`,
		"no schema":       `{"layers":[],"config":{}}`,
		"both kinds":      strings.Replace(manifest(nil), `{`, `{"manifests":[],`, 1),
		"neither kind":    `{"schemaVersion":2}`,
		"wrong type":      strings.Replace(manifest(nil), v1.MediaTypeImageManifest, v1.MediaTypeImageIndex, 1),
		"twice":           strings.Replace(manifest(nil), `{`, `{"config":{},`, 1),
		"case twice":      strings.Replace(manifest(nil), `{`, `{"Layers":[],`, 1),
		"layers no list":  `{"schemaVersion":2,"config":{},"layers":{}}`,
		"too many images": index(many...),
		"no layers":       manifest(func(m *v1.Manifest) { m.Layers = nil }),
		"500 layers":      manifest(func(m *v1.Manifest) { m.Layers = make([]v1.Descriptor, 501) }),
		"artifact":        manifest(func(m *v1.Manifest) { m.Config.MediaType = "application/vnd.example" }),
		"large config":    manifest(func(m *v1.Manifest) { m.Config.Size = maxConfig + 1 }),
		"negative size":   layer(func(d *v1.Descriptor) { d.Size = -1 }),
		"huge layer":      layer(func(d *v1.Descriptor) { d.Size = maxBlob + 1 }),
		"no digest":       layer(func(d *v1.Descriptor) { d.Digest = "" }),
		"weak digest":     layer(func(d *v1.Descriptor) { d.Digest = "sha1:" + digest.Digest(strings.Repeat("a", 40)) }),
		"path for digest": layer(func(d *v1.Descriptor) { d.Digest = "sha256:../../../etc/passwd" }),
		"capitals":        layer(func(d *v1.Descriptor) { d.Digest = "sha256:" + digest.Digest(strings.Repeat("A", 64)) }),
		"urls":            layer(func(d *v1.Descriptor) { d.URLs = []string{"http://127.0.0.1:8006/"} }),
		"foreign":         layer(func(d *v1.Descriptor) { d.MediaType = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" }),
	} {
		doc, err := parseDocument([]byte(text), "")
		if err == nil && doc.image != nil {
			err = checkImage(doc.image, 500)
		}
		if !errdefs.IsInvalidArgument(err) && !errdefs.IsNotImplemented(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := parseDocument([]byte(manifest(nil)), v1.MediaTypeImageIndex); !errdefs.IsInvalidArgument(err) {
		t.Errorf("header of another kind: %v", err)
	}
	for _, header := range []string{"", "application/json", v1.MediaTypeImageManifest, dockerManifest} {
		if _, err := parseDocument([]byte(manifest(nil)), header); err != nil {
			t.Errorf("header %q: %v", header, err)
		}
	}
}

func platform(os, arch, variant string, name string) v1.Descriptor {
	d := descriptor(v1.MediaTypeImageManifest)
	d.Digest, d.Platform = digest.FromString(name), &v1.Platform{OS: os, Architecture: arch, Variant: variant}
	return d
}

func TestInstance(t *testing.T) {
	here := runtime.GOARCH
	plain := ""
	if here == "arm64" {
		plain = "v8"
	}
	nested := platform("linux", here, plain, "nested")
	nested.MediaType = v1.MediaTypeImageIndex
	for name, c := range map[string]struct {
		entries []v1.Descriptor
		want    string
	}{
		"one":           {[]v1.Descriptor{platform("linux", here, "", "a")}, "a"},
		"first of two":  {[]v1.Descriptor{platform("linux", here, "", "a"), platform("linux", here, "", "b")}, "a"},
		"best variant":  {[]v1.Descriptor{platform("linux", here, "v9", "a"), platform("linux", here, plain, "b")}, "b"},
		"others":        {[]v1.Descriptor{platform("windows", here, "", "a"), platform("linux", "mips64le", "", "b"), {Digest: digest.FromString("c")}, platform("linux", here, "", "d")}, "d"},
		"none":          {[]v1.Descriptor{platform("linux", "riscv64", "", "a")}, ""},
		"only unknown":  {[]v1.Descriptor{platform("linux", here, "v99", "a")}, ""},
		"nothing":       {nil, ""},
		"index inside":  {[]v1.Descriptor{nested}, ""},
		"no digest":     {[]v1.Descriptor{{MediaType: v1.MediaTypeImageManifest, Platform: &v1.Platform{OS: "linux", Architecture: here}}}, ""},
		"too large":     {[]v1.Descriptor{{Digest: digest.FromString("a"), Size: maxManifest + 1, Platform: &v1.Platform{OS: "linux", Architecture: here}}}, ""},
		"at some place": {[]v1.Descriptor{{Digest: digest.FromString("a"), URLs: []string{"http://x"}, Platform: &v1.Platform{OS: "linux", Architecture: here}}}, ""},
	} {
		got, err := instance(&v1.Index{Manifests: c.entries})
		if c.want == "" && err == nil || c.want != "" && (err != nil || got.Digest != digest.FromString(c.want)) {
			t.Errorf("%s: %s, %v", name, got.Digest, err)
		}
	}
}

func TestParseConfig(t *testing.T) {
	good := fmt.Sprintf(`{"os":"linux","architecture":%q,"rootfs":{"type":"layers","diff_ids":[%q]}}`, runtime.GOARCH, digest.FromString("x"))
	if _, err := parseConfig([]byte(good), 1); err != nil {
		t.Error(err)
	}
	for name, text := range map[string]string{
		"empty": ``, "other system": strings.Replace(good, "linux", "windows", 1), "other machine": strings.Replace(good, runtime.GOARCH, "mips", 1),
		"twice": strings.Replace(good, `{`, `{"rootfs":{},`, 1), "case": strings.Replace(good, `{`, `{"RootFS":{},`, 1),
		"type": strings.Replace(good, "layers", "other", 1), "digest": strings.Replace(good, "sha256:", "sha1:", 1), "no ids": `{"os":"linux"}`,
	} {
		if _, err := parseConfig([]byte(text), 1); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := parseConfig([]byte(good), 2); !errdefs.IsInvalidArgument(err) {
		t.Errorf("fewer than layers: %v", err)
	}
}

// FuzzDocument feeds manifests, indexes and configurations.
func FuzzDocument(f *testing.F) {
	f.Add([]byte(manifest(nil)), v1.MediaTypeImageManifest)
	f.Add([]byte(index(platform("linux", runtime.GOARCH, "", "a"))), "")
	f.Add([]byte(`{"schemaVersion":1}`), dockerManifest)
	f.Add([]byte(fmt.Sprintf(`{"os":"linux","architecture":%q,"rootfs":{"type":"layers","diff_ids":[]}}`, runtime.GOARCH)), "")
	f.Fuzz(func(t *testing.T, raw []byte, header string) {
		if doc, err := parseDocument(raw, header); err == nil {
			if (doc.image == nil) == (doc.index == nil) {
				t.Error("neither or both")
			}
			if doc.index != nil {
				if d, err := instance(doc.index); err == nil && (d.Digest.Validate() != nil || len(d.URLs) > 0) {
					t.Errorf("chose %+v", d)
				}
			} else if checkImage(doc.image, 500) == nil && len(doc.image.Layers) == 0 {
				t.Error("image without layers")
			}
		}
		if c, err := parseConfig(raw, 1); err == nil && len(c.RootFS.DiffIDs) != 1 {
			t.Errorf("configuration %+v", c)
		}
	})
}

func TestProxy(t *testing.T) {
	p := Proxy{HTTPS: "http://secure:3128", HTTP: "http://plain:3128", NoProxy: "localhost, .corp.example ,*.dev.example,10.0.0.0/8,exact:5000,::1"}
	for host, want := range map[string]bool{
		"docker.io": true, "localhost": false, "localhost:5000": false, "corp.example": true, "a.corp.example:443": false, "acorp.example": true,
		"x.dev.example": false, "10.1.2.3:5000": false, "11.1.2.3": true, "exact:5000": false, "exact:5001": true, "[::1]:5000": false, "CORP.EXAMPLE.org": true,
	} {
		if got := p.forHost(host); (got == "http://secure:3128") != want || !want && got != "" {
			t.Errorf("%s: %q", host, got)
		}
	}
	if got := (Proxy{HTTP: "http://plain:3128"}).forHost("x"); got != "http://plain:3128" {
		t.Errorf("only one: %q", got)
	}
	if got := (Proxy{HTTPS: "http://p", NoProxy: "*"}).forHost("x"); got != "" {
		t.Errorf("none at all: %q", got)
	}
	for _, bad := range []Proxy{{HTTPS: "user:secret@host:1"}, {HTTP: "http://secret\x7f"}, {HTTPS: "nothing"}} {
		if err := bad.check(); !errdefs.IsInvalidArgument(err) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}
