package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// hookDir holds hooks that write their arguments to notes, and what is none.
func hookDir(t *testing.T) (dir, notes string) {
	t.Helper()
	dir, notes = t.TempDir(), filepath.Join(t.TempDir(), "notes")
	script := fmt.Sprintf("#!/bin/sh\necho \"${0##*/} $1\" >>%s\n", notes)
	for name, mode := range map[string]os.FileMode{
		"prestart/20-second": 0o755, "prestart/10-first": 0o711, "prestart/no-program": 0o644,
		"poststart/only": 0o755, "other/kind": 0o755,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(script), mode); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"prestart/link": "10-first", "poststart/directory": "."} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	return dir, notes
}

func TestFindGuestHooks(t *testing.T) {
	dir, _ := hookDir(t)
	got, err := findGuestHooks(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	hook := func(kind, name string) specs.Hook {
		return specs.Hook{Path: filepath.Join(dir, kind, name), Args: []string{name, kind}}
	}
	if want := []specs.Hook{hook("prestart", "10-first"), hook("prestart", "20-second")}; !reflect.DeepEqual(got.Prestart, want) {
		t.Errorf("prestart hooks %+v, want %+v", got.Prestart, want)
	}
	if want := []specs.Hook{hook("poststart", "only")}; !reflect.DeepEqual(got.Poststart, want) || got.Poststop != nil {
		t.Errorf("others are %+v", got)
	}
	if none, err := findGuestHooks(t.Context(), "/no/such/dir"); err != nil || none.Prestart != nil {
		t.Errorf("without a directory: %+v, %v", none, err)
	}
	if _, err := findGuestHooks(t.Context(), filepath.Join(dir, "prestart/no-program")); err == nil {
		t.Error("a file passed for a directory of hooks")
	}
}

// TestRealGuestHooks runs a pod whose guest has hooks, beside those that its
// first container's spec brings.
func TestRealGuestHooks(t *testing.T) {
	p := newPod(t)
	dir, notes := hookDir(t)
	if err := p.Setup(t.Context(), SetupRequest{ID: "pod1", GuestHookPath: dir}); err != nil {
		t.Fatal(err)
	}
	r := p.request(t, "pod1", "exit 0")
	r.Spec.Mounts = r.Spec.Mounts[:2]
	r.Spec.Hooks = &specs.Hooks{Prestart: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo of the spec >>" + notes}}}}
	init := p.start(t, r)
	if code, err := init.Wait(t.Context()); code != 0 || err != nil {
		t.Errorf("exit %d, %v", code, err)
	}
	if err := p.Destroy(t.Context()); err != nil {
		t.Error(err)
	}
	got, err := os.ReadFile(notes)
	if want := "of the spec\n10-first prestart\n20-second prestart\nonly poststart\n"; err != nil || string(got) != want {
		t.Errorf("ran %q, %v, want %q", got, err, want)
	}
}

// TestConfidentialGuestTakesNoCode is about what a host on a TEE may not bring,
// whatever the policy says.
func TestConfidentialGuestTakesNoCode(t *testing.T) {
	f := newFixture(t)
	f.deps.Confidential = true
	for _, r := range []SetupRequest{
		{KernelModules: []KernelModule{{Name: "x"}}},
		{GuestHookPath: "/usr/share/oci/hooks"},
	} {
		if err := f.Setup(t.Context(), r); !errdefs.IsPermissionDenied(err) {
			t.Errorf("%+v: %v", r, err)
		}
	}
	r := f.request(t, "c1")
	r.Spec.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/sh"}}}
	if err := f.Create(t.Context(), r); !errdefs.IsPermissionDenied(err) {
		t.Errorf("hooks in the spec: %v", err)
	}
	if len(f.modules) > 0 || f.known("c1") {
		t.Error("a refused request had an effect")
	}
	r.Spec.Hooks = &specs.Hooks{} // as shims send it
	f.create(t, r)
}

func TestKernelModules(t *testing.T) {
	f := newFixture(t)
	want := []KernelModule{{Name: "a", Parameters: []string{"x=1"}}, {Name: "b"}}
	r := SetupRequest{KernelModules: want}
	for range 2 { // a shim that got no answer
		if err := f.Setup(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if !reflect.DeepEqual(f.modules, want) {
		t.Errorf("loaded %+v", f.modules)
	}
}
