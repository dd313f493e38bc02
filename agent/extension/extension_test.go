package extension

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// manifest has the shape of the one in Kata's CoCo extension, see
// docs/design/proposals/composable-vm-images.md there.
const manifest = `schema_version = 1

[paths]
ocicrypt-config = "etc/ocicrypt_config.json"
pause-bundle = "pause_bundle"

[[process]]
id = "attestation-agent"
level = 1
select = "${attester_variant}"
args = ["--attestation_sock", "${aa_attestation_uri}"]
[process.variants.default]
path = "usr/local/bin/attestation-agent"

[[process]]
id = "confidential-data-hub"
level = 2
path = "usr/local/bin/confidential-data-hub"
env = { OCICRYPT_KEYPROVIDER_CONFIG = "${ocicrypt_config_path}" }
`

func mounted(t testing.TB, text string) string {
	t.Helper()
	root := t.TempDir()
	path := filepath.Join(root, manifestPath)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestLoad(t *testing.T) {
	root := mounted(t, manifest)
	e, err := Load(root)
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(root, "pause_bundle"); e.PauseBundle != want {
		t.Errorf("pause bundle %s, want %s", e.PauseBundle, want)
	}
	if want := []string{"attestation-agent", "confidential-data-hub"}; !slices.Equal(e.Processes, want) {
		t.Errorf("processes %v, want %v", e.Processes, want)
	}
	if e, err := Load(mounted(t, "schema_version = 1\npaths.pause-bundle = \"/abs\"")); err != nil || !strings.HasSuffix(e.PauseBundle, "/abs") {
		t.Errorf("got %+v, %v", e, err)
	}
}

func TestLoadRefuses(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "none")); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("not mounted: %v", err)
	}
	if _, err := Load(t.TempDir()); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("mounted without a manifest: %v", err)
	}
	for _, tc := range []struct{ name, text, want string }{
		{"no version", "[paths]\npause-bundle = \"p\"", "schema_version"},
		{"other version", strings.Replace(manifest, "schema_version = 1", "schema_version = 2", 1), "schema_version"},
		{"no bundle", "schema_version = 1", "paths.pause-bundle"},
		{"bundle elsewhere", strings.Replace(manifest, `"pause_bundle"`, `"../pause_bundle"`, 1), "paths.pause-bundle"},
		{"bundle of no kind", strings.Replace(manifest, `"pause_bundle"`, "1", 1), "paths.pause-bundle"},
		{"empty bundle", strings.Replace(manifest, `"pause_bundle"`, `" / "`, 1), "paths.pause-bundle"},
		{"process without id", manifest + "[[process]]\nlevel = 3", "process 3 has no id"},
		{"process of no kind", "schema_version = 1\npaths.pause-bundle = \"p\"\nprocess = 1", "process is no list"},
		{"many processes", manifest + strings.Repeat("[[process]]\nid = \"x\"\n", maxProcesses), "process is no list"},
		{"malformed", "= 1", "malformed"},
		{"large", "#" + strings.Repeat("x", maxManifest), "larger than"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := Load(mounted(t, tc.text)); !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// A manifest that is a link out of the extension is none.
func TestLoadStaysInside(t *testing.T) {
	root := mounted(t, manifest)
	path := filepath.Join(root, manifestPath)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(mounted(t, manifest), manifestPath), path); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(root); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(manifest))
	f.Add([]byte("schema_version = 1\npaths.pause-bundle = \"/..\""))
	f.Fuzz(func(t *testing.T, text []byte) {
		e, err := parse(text)
		if err == nil && !filepath.IsLocal(e.PauseBundle) {
			t.Errorf("bundle %q", e.PauseBundle)
		}
	})
}
