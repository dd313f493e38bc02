package registry

import (
	"os"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestConfiguration(t *testing.T) {
	const mirrors = "[[registry]]\nprefix=\"a.example\"\nlocation=\"b.example/x\"\n[[registry.mirror]]\nlocation=\"c.example\"\n"
	for name, c := range map[string]struct {
		config Config
		text   string // of the refusal; empty accepts
	}{
		"nothing":        {Config{}, ""},
		"rules":          {Config{Registries: []Registry{{Prefix: "*.example", Blocked: true}, {Location: "a.example", Insecure: true}, {Prefix: "b.example"}}}, ""},
		"text":           {Config{RegistriesConf: []byte(mirrors)}, ""},
		"helpers":        {Config{RegistriesConf: []byte("credential-helpers = [\"evil\"]\n")}, "credential helpers"},
		"layer helper":   {Config{RegistriesConf: []byte("additional-layer-store-auth-helper = \"evil\"\n")}, "authentication helper"},
		"no TOML":        {Config{RegistriesConf: []byte("[[")}, "malformed"},
		"version 1":      {Config{RegistriesConf: []byte("[registries.search]\nregistries = 7\n")}, "malformed"},
		"large":          {Config{RegistriesConf: make([]byte, maxText+1)}, "registries.conf of"},
		"injected rule":  {Config{Registries: []Registry{{Prefix: "a\"\ninsecure = true #"}}}, "registry prefix"},
		"injected place": {Config{Registries: []Registry{{Prefix: "a", Mirrors: []Mirror{{Location: "b\\"}}}}}, "registry location"},
		"lookaside":      {Config{Lookaside: []byte("default-docker:\n  lookaside: https://s.example\ndocker:\n  a.example:\n    lookaside: file:///s\n")}, ""},
		"no YAML":        {Config{Lookaside: []byte("docker: [")}, "signature store"},
		"other YAML":     {Config{Lookaside: []byte("evil: true")}, "signature store"},
		"YAML bomb":      {Config{Lookaside: []byte(bomb())}, "signature store"},
		"no certificate": {Config{Roots: []string{"-----BEGIN NONSENSE-----"}}, "root certificate 1"},
		"proxy":          {Config{Proxy: Proxy{HTTPS: "nothing"}}, "proxy"},
	} {
		t.Run(name, func(t *testing.T) {
			c.config.Dir = t.TempDir()
			client, err := New(c.config)
			if c.text == "" {
				if err != nil {
					t.Fatal(err)
				}
				err = client.Close()
			}
			if (c.text == "") != (err == nil) || err != nil && (!errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), c.text)) {
				t.Errorf("got %v", err)
			}
			if left, _ := os.ReadDir(c.config.Dir); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// bomb grows to a billion values.
func bomb() string {
	text := "a: &a0 [x]\n"
	for i := range 9 {
		ref := "*a" + string(rune('0'+i))
		text += "b" + string(rune('0'+i)) + ": &a" + string(rune('1'+i)) + " [" + strings.Repeat(ref+",", 10) + "]\n"
	}
	return "docker:\n  h:\n" + strings.ReplaceAll("    "+text, "\n", "\n    ")
}

// FuzzConfiguration feeds what initdata may bring for the library.
func FuzzConfiguration(f *testing.F) {
	f.Add([]byte("[[registry]]\nprefix=\"a.example\"\nblocked=true\n"), []byte("docker: {}"), "a.example")
	f.Add([]byte("credential-helpers=[\"x\"]"), []byte("default-docker: {lookaside: \"https://x\"}"), "\"\n")
	f.Fuzz(func(t *testing.T, conf, lookaside []byte, prefix string) {
		for _, c := range []Config{{RegistriesConf: conf, Lookaside: lookaside}, {Registries: []Registry{{Prefix: prefix}}}} {
			c.Dir = t.TempDir()
			if client, err := New(c); err == nil {
				client.Close()
			}
			if left, err := os.ReadDir(c.Dir); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		}
	})
}
