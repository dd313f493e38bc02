package main

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/agent/config"
)

func TestComponents(t *testing.T) {
	for _, tc := range []struct {
		procs, api, refused string
	}{
		{"none", "resource", ""},
		{"none", "all", ""},
		{"attestation-agent", "resource", "attestation-agent are not built"},
		{"confidential-data-hub", "resource", "confidential-data-hub are not built"},
		{"api-server-rest", "resource", ""},
		{"api-server-rest", "attestation", "guest_components_rest_api: attestation"},
		{"api-server-rest", "all", "guest_components_rest_api: all"},
	} {
		err := checkComponents(config.Workload{Procs: tc.procs, API: tc.api})
		if tc.refused == "" && err != nil || tc.refused != "" && (!errors.Is(err, errdefs.ErrNotImplemented) || !strings.Contains(err.Error(), tc.refused)) {
			t.Errorf("%s with %s: got %v, want %q", tc.procs, tc.api, err, tc.refused)
		}
	}
}

func TestExtension(t *testing.T) {
	root := t.TempDir()
	manifest := filepath.Join(root, "etc/kata-extensions/components.toml")
	if err := os.MkdirAll(filepath.Dir(manifest), 0o755); err != nil {
		t.Fatal(err)
	}
	text := "schema_version = 1\n[paths]\npause-bundle = \"pause_bundle\"\n[[process]]\nid = \"attestation-agent\"\n[[process]]\nid = \"confidential-data-hub\"\n"
	if err := os.WriteFile(manifest, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	old := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	defer slog.SetDefault(old)
	for _, tc := range []struct{ name, root, bundle, want, logged string }{
		{"no extension", filepath.Join(root, "none"), "/pause_bundle", "/pause_bundle", ""},
		{"extension", root, "/pause_bundle", root + "/pause_bundle", "processes=\"attestation-agent confidential-data-hub\""},
		{"the image has its own", root, "/opt/pause", "/opt/pause", "bundle=/opt/pause"},
	} {
		log.Reset()
		p := &process{config: config.Config{PauseBundle: tc.bundle}}
		if err := p.adoptExtension(t.Context(), tc.root); err != nil || p.config.PauseBundle != tc.want {
			t.Errorf("%s: bundle %s, %v, want %s", tc.name, p.config.PauseBundle, err, tc.want)
		}
		if n := strings.Count(log.String(), "\n"); !strings.Contains(log.String(), tc.logged) || (n > 0) != (tc.logged != "") || n > 1 {
			t.Errorf("%s: logged %s", tc.name, &log)
		}
	}
	if err := (&process{}).adoptExtension(t.Context(), t.TempDir()); err == nil {
		t.Error("an extension without a manifest was passed over")
	}
}
