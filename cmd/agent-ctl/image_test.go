package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/coffer-cc/coffer/imagepull/imagepulltest"
)

// write puts a file into a fresh directory.
func write(t *testing.T, name string, data []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestImage takes an image from a registry through a layout and back, encrypted
// and signed on the way. What a guest makes of it is tested with the puller.
func TestImage(t *testing.T) {
	reg := imagepulltest.NewRegistry(t)
	reg.Push(t, "app:1", imagepulltest.NewLayer(t, imagepulltest.Gzip, imagepulltest.File("hello", "secret text")))
	ca := write(t, "ca.pem", []byte(reg.CA))
	key := write(t, "key", []byte(strings.Repeat("k", 32)))
	layout := t.TempDir()

	r := ctl(t, nil, "image", "encrypt", reg.Docker("app:1"), "oci:"+layout+":enc", "--ca", ca, "--key", key, "--key-id", "kbs:///default/key/app")
	if r.code != 0 || !regexp.MustCompile(`^sha256:[0-9a-f]{64}\n$`).MatchString(r.out) {
		t.Fatalf("encrypt: %+v", r)
	}
	blobs, _ := filepath.Glob(layout + "/blobs/sha256/*")
	if len(blobs) == 0 {
		t.Fatal("the layout is empty")
	}
	wrapped := false
	for _, b := range blobs {
		raw, err := os.ReadFile(b)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(raw), "secret text") {
			t.Errorf("%s has plain text", b)
		}
		wrapped = wrapped || strings.Contains(string(raw), "org.opencontainers.image.enc.keys.provider.attestation-agent")
	}
	if !wrapped {
		t.Error("no layer has a wrapped key")
	}

	r = ctl(t, nil, "image", "encrypt", reg.Docker("app:1"), reg.Docker("enc:1"), "--ca", ca, "--key", key, "--key-id", "kbs:///default/key/app")
	if r.code != 0 {
		t.Fatalf("encrypt into the registry: %+v", r)
	}
	dir := t.TempDir()
	private, public := filepath.Join(dir, "private"), filepath.Join(dir, "public")
	ctl(t, nil, "image", "keygen", private, public).want(t, 0, "", "")
	ctl(t, nil, "image", "keygen", private, public).want(t, 1, "", "exists")
	if fi, err := os.Stat(private); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("private key: %v, %v", fi.Mode(), err)
	}
	signed := ctl(t, nil, "-o", "json", "image", "sign", reg.Docker("enc:1"), "--ca", ca, "--key", private)
	var out struct{ Digest string }
	if err := json.Unmarshal([]byte(signed.out), &out); err != nil || out.Digest+"\n" != r.out {
		t.Errorf("sign: %+v: %v; encrypted %s", signed, err, r.out)
	}
	if tag := strings.Replace(out.Digest, ":", "-", 1) + ".sig"; reg.Count("PUT", tag) == 0 {
		t.Error("no signature was stored")
	}
}

func TestImageRefuses(t *testing.T) {
	reg := imagepulltest.NewRegistry(t)
	ca := write(t, "ca.pem", []byte(reg.CA))
	short := write(t, "key", []byte("short"))
	layout := "oci:" + t.TempDir()
	enc := func(args ...string) result {
		return ctl(t, nil, append([]string{"image", "encrypt", "--ca", ca}, args...)...)
	}
	enc("docker://x", layout).want(t, 2, "", "--key and --key-id are needed")
	enc("docker://x", layout, "--key", short, "--key-id", "a/b").want(t, 2, "", "--key-id")
	enc("docker://x", layout, "--key", short, "--key-id", "kbs:///a/b/c").want(t, 1, "", "key of 5 bytes, not 32")
	enc("docker://x", layout, "--key", "/nowhere", "--key-id", "kbs:///a/b/c").want(t, 4, "", "/nowhere")
	enc("docker://x", layout, "--key", short, "--key-id", "kbs:///a/b/c", "--username", "me").want(t, 2, "", "go together")
	key := write(t, "key", []byte(strings.Repeat("k", 32)))
	enc(reg.Docker("none:1"), layout, "--key", key, "--key-id", "kbs:///a/b/c").want(t, 4, "", "none")
	reg.RequireAuth("me", "word")
	enc(reg.Docker("none:1"), layout, "--key", key, "--key-id", "kbs:///a/b/c").want(t, 3, "", "none")
	ctl(t, nil, "image", "sign", "docker://x").want(t, 2, "", "--key is needed")
	ctl(t, nil, "image", "sign", "docker://x", "--key", short).want(t, 1, "", short)
}

// Logins may come from a file, as skopeo takes them, and what is done is told
// on stderr unless told otherwise.
func TestImageWithAuthFile(t *testing.T) {
	reg := imagepulltest.NewRegistry(t)
	reg.Push(t, "team/app:1", imagepulltest.NewLayer(t, imagepulltest.Gzip, imagepulltest.File("a", "a")), imagepulltest.NewLayer(t, imagepulltest.Zstd, imagepulltest.File("b", "b")))
	reg.RequireAuth("me", "pass:word")
	ca, key := write(t, "ca.pem", []byte(reg.CA)), write(t, "key", []byte(strings.Repeat("k", 32)))
	login := func(key, auth string) string {
		return write(t, "auth.json", []byte(`{"auths":{"`+key+`":{"auth":"`+auth+`"}},"credsStore":"evil"}`))
	}
	const good, wrong = "bWU6cGFzczp3b3Jk", "bWU6d3Jvbmc="
	enc := func(authfile string, more ...string) result {
		args := []string{"image", "encrypt", reg.Docker("team/app:1"), reg.Docker("team/app:enc"), "--ca", ca, "--key", key, "--key-id", "kbs:///default/key/app", "--authfile", authfile}
		return ctl(t, nil, append(args, more...)...)
	}
	r := enc(login(reg.Host+"/team", good))
	if r.code != 0 || !strings.HasPrefix(r.out, "sha256:") {
		t.Fatalf("%+v", r)
	}
	for _, step := range []string{"encrypt layer 1 of 2\n", "encrypt layer 2 of 2\n", "write " + reg.Ref("team/app:enc") + "\n"} {
		if strings.Count(r.err, step) != 1 {
			t.Errorf("%q is not told once in %q", step, r.err)
		}
	}
	if r := enc(login(reg.Host, good), "-q"); r.code != 0 || r.err != "" {
		t.Errorf("quiet: %+v", r)
	}
	enc(login(reg.Host, wrong)).want(t, 3, "", "401")
	enc(login("other.example", good)).want(t, 3, "", "401")
	enc(login(reg.Host, "%%")).want(t, 1, "", "base64")
	enc("/nowhere").want(t, 4, "", "/nowhere")
	enc(login(reg.Host, good), "--username", "me", "--password-file", key).want(t, 2, "", "exclude each other")
	if r := enc(login(reg.Host, wrong)); strings.Contains(r.err, "wrong") || strings.Contains(r.err, wrong) {
		t.Errorf("the password is told: %q", r.err)
	}
	private, public := filepath.Join(t.TempDir(), "private"), filepath.Join(t.TempDir(), "public")
	ctl(t, nil, "image", "keygen", private, public).want(t, 0, "", "")
	if r := ctl(t, nil, "image", "sign", reg.Docker("team/app:enc"), "--ca", ca, "--key", private, "--authfile", login(reg.Host, good)); r.code != 0 {
		t.Errorf("sign: %+v", r)
	}
}

func TestImageHelp(t *testing.T) {
	for command, words := range map[string][]string{
		"":        {"docker://REFERENCE", "oci:DIRECTORY", "encrypt", "sign", "keygen"},
		"encrypt": {"SOURCE DESTINATION", "--key FILE", "--key-id URI", "--authfile FILE", "--ca FILE", "--plain-http", "--username NAME", "--password-file FILE", "--quiet", "--packet-v2", "--provider NAME", "agent-ctl image encrypt docker://"},
		"sign":    {"IMAGE", "--key FILE", "--identity REPOSITORY", "--authfile FILE", "sigstoreSigned", "cosign"},
		"keygen":  {"PRIVATE-FILE PUBLIC-FILE"},
	} {
		args := []string{"image", "--help"}
		if command != "" {
			args = []string{"image", command, "--help"}
		}
		r := ctl(t, nil, args...)
		for _, w := range words {
			if r.code != 0 || !strings.Contains(r.out, w) {
				t.Errorf("image %s --help (%d) lacks %q:\n%s", command, r.code, w, r.out)
			}
		}
	}
}
