package sandbox

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestSourcesOverSymlinks has the spec name sources that lead elsewhere.
func TestSourcesOverSymlinks(t *testing.T) {
	f := newFixture(t)
	shared := filepath.Join(f.run, "shared", "containers")
	volume := filepath.Join(shared, "volume")
	if err := os.MkdirAll(filepath.Join(volume, "real"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{"all": "/", "near": "real"} {
		if err := os.Symlink(to, filepath.Join(volume, name)); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(source, kind string, options ...string) error {
		r := f.request(t, "c1")
		r.Spec.Mounts = []specs.Mount{{Source: source, Destination: "/data", Type: kind, Options: options}}
		err := f.Create(t.Context(), r)
		if err == nil {
			err = f.Remove(t.Context(), "c1")
		}
		return err
	}
	fine := func(err error) bool { return err == nil }
	f.deps.Confidential = true
	for _, tt := range []struct {
		source, kind string
		class        func(error) bool
	}{
		{volume, "bind", fine},
		{volume + "/real/", "bind", fine},
		{volume + "/all", "bind", errdefs.IsPermissionDenied},
		{volume + "/all/etc", "none", errdefs.IsPermissionDenied},
		{volume + "/near", "bind", errdefs.IsPermissionDenied},
		{volume + "/../../../../etc", "bind", errdefs.IsInvalidArgument},
		{"shared/containers/volume", "bind", errdefs.IsInvalidArgument},
		{volume + "/real", "bind", fine},
	} {
		if err := ask(tt.source, tt.kind, "rbind"); !tt.class(err) {
			t.Errorf("%s: %v", tt.source, err)
		}
	}
	if err := ask("tmpfs", "tmpfs", "nosuid"); err != nil {
		t.Errorf("no bind: %v", err)
	}
	f.deps.Confidential = false
	if err := ask(volume+"/near", "bind", "rbind"); err != nil {
		t.Errorf("without a TEE: %v", err)
	}
}
