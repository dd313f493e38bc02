package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/coffer-cc/coffer/agent/policy"
	"github.com/coffer-cc/coffer/agent/sandbox"
	"github.com/coffer-cc/coffer/mount/storage"
)

var update = flag.Bool("update", false, "write golden files anew")

func facts() sandbox.ImageFacts {
	img := storage.Image{
		Reference: "registry.example/app:1", ManifestDigest: "sha256:" + strings.Repeat("1", 64), IndexDigest: "sha256:" + strings.Repeat("a", 64),
	}
	img.Config.Config = v1.ImageConfig{
		User: "app", WorkingDir: "/srv", Env: []string{"PATH=/bin"}, Entrypoint: []string{"/app"}, Cmd: []string{"-v"},
		Labels: map[string]string{"org.example": "x"},
	}
	return sandbox.ImageFacts{ContainerID: "c1", Image: img, Process: &specs.Process{
		Args: []string{"/app", "-v"}, Env: []string{"PATH=/bin", "HOSTNAME=pod1"}, Cwd: "/srv",
		User: specs.User{UID: 7, GID: 8, AdditionalGids: []uint32{9}},
	}}
}

// The input of the rule is an interface to whoever writes policies.
func TestImageRuleInput(t *testing.T) {
	const golden = "testdata/verified-image.json"
	var got bytes.Buffer
	enc := json.NewEncoder(&got)
	enc.SetIndent("", "\t")
	for _, f := range []sandbox.ImageFacts{facts(), {ContainerID: "c2", Process: &specs.Process{}}} {
		if err := enc.Encode(imageInputOf(f)); err != nil {
			t.Fatal(err)
		}
	}
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got.String(), want)
	}
}

// exampleRule is the rule that docs/policy.md shows.
func exampleRule(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "```rego\n")
	rule, _, end := strings.Cut(rest, "```")
	if !ok || !end {
		t.Fatal("docs/policy.md shows no rule")
	}
	return rule
}

func TestImageRule(t *testing.T) {
	const head = "package agent_policy\nimport future.keywords.every\nimport future.keywords.in\n"
	cases := []struct {
		name   string
		rules  string
		change func(*sandbox.ImageFacts)
		class  func(error) bool // nil accepts
		text   string
	}{
		{name: "no rule", rules: "default CreateContainerRequest := true"},
		{name: "pinned", rules: exampleRule(t)},
		{name: "pinned by index", rules: exampleRule(t), change: func(f *sandbox.ImageFacts) {
			f.Image.ManifestDigest, f.Image.IndexDigest = "sha256:x", "sha256:"+strings.Repeat("2", 64)
		}},
		{"another digest", exampleRule(t), func(f *sandbox.ImageFacts) { f.Image.ManifestDigest = "sha256:x" },
			errdefs.IsPermissionDenied, "image registry.example/app:1 with digest sha256:x: VerifiedImage is blocked by policy"},
		{"another program", exampleRule(t), func(f *sandbox.ImageFacts) { f.Process.Args = []string{"/bin/sh"} },
			errdefs.IsPermissionDenied, "blocked by policy"},
		{"another variable", exampleRule(t), func(f *sandbox.ImageFacts) { f.Process.Env = []string{"LD_PRELOAD=/x"} },
			errdefs.IsPermissionDenied, "blocked by policy"},
		{"a default alone", "default VerifiedImage := false", nil, errdefs.IsPermissionDenied, "blocked by policy"},
		{"tells why", `VerifiedImage := false { print("not", input.image.reference) }`, nil, errdefs.IsPermissionDenied, "not registry.example/app:1"},
		{"no value", "VerifiedImage { input.image.reference == 1 }", nil, errdefs.IsInternal, "VerifiedImage"},
		{"no verdict", `VerifiedImage := "yes"`, nil, errdefs.IsInternal, "VerifiedImage"},
		{name: "state", rules: `VerifiedImage := {"allowed": true, "ops": [{"op": "add", "path": "/pstate/c1", "value": input.image.manifest_digest}]}`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			engine := policy.New()
			if err := engine.Replace(t.Context(), head+c.rules); err != nil {
				t.Fatal(err)
			}
			f := facts()
			if c.change != nil {
				c.change(&f)
			}
			err := imageRules{engine, &ledger{}}.Judge(t.Context(), f)
			if c.class == nil && err == nil {
				return
			}
			if c.class == nil || !c.class(err) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v", err)
			}
		})
	}
	if err := (imageRules{policy.New(), &ledger{}}).Judge(t.Context(), facts()); !errdefs.IsPermissionDenied(err) {
		t.Errorf("without a policy: %v", err)
	}
}

func TestReserved(t *testing.T) {
	for dir, want := range map[string][]string{
		"":                                 {"image"},
		"/run/kata-containers/image":       {"image"},
		"/run/kata-containers/image/deep":  {"image"},
		"/run/kata-containers/store":       {"image", "store"},
		"/run/kata-containers/store/deep/": {"image", "store"},
		"/run/elsewhere":                   {"image"},
		"/run":                             nil, // would hold all that the host mounts
		"/run/kata-containers":             nil,
	} {
		if got, err := reservedFor(dir); !slices.Equal(got, want) || (err != nil) != (want == nil) {
			t.Errorf("%q: %q, %v", dir, got, err)
		}
	}
}
