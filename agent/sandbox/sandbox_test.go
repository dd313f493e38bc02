package sandbox

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/coffer-cc/coffer/mount/storage"
)

func TestSetup(t *testing.T) {
	f := newFixture(t)
	for _, path := range []string{"old/config.json", "old/rootfs/file", "foreign/file", "shared/containers/f", ".hidden/config.json"} {
		p := filepath.Join(f.run, path)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := SetupRequest{ID: "pod1", Hostname: "web-0", DNS: []string{"nameserver 10.0.0.1"}, Storages: []storage.Storage{{Source: "shm"}}}
	for range 2 { // repeatable
		if err := f.Setup(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]bool{"old": false, "foreign/file": true, "shared/containers/f": true, ".hidden/config.json": true} {
		if _, err := os.Stat(filepath.Join(f.run, path)); (err == nil) != want {
			t.Errorf("%s: %v", path, err)
		}
	}
	for _, ns := range []string{"ipc", "uts"} {
		if err := pinned(filepath.Join(f.deps.Namespaces, ns)); err != nil {
			t.Error(err)
		}
	}
	if len(mounts(t, f.deps.Namespaces)) != 2 {
		t.Errorf("mounted: %v", mounts(t, f.deps.Namespaces))
	}
	if len(f.storages.dns) != 2 || !slices.Equal(f.storages.owners(), []string{owner}) {
		t.Errorf("resolver lines %v, storages of %v", f.storages.dns, f.storages.owners())
	}
	if host, _ := os.Hostname(); host == "web-0" {
		t.Error("the guest itself was renamed")
	}
	r.Hostname = "other"
	if err := f.Setup(t.Context(), r); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("another name: %v", err)
	}
	os.RemoveAll(filepath.Join(f.run, "foreign"))
	os.RemoveAll(filepath.Join(f.run, ".hidden"))
}

func TestSetupRefuses(t *testing.T) {
	f := newFixture(t)
	for name, tc := range map[string]struct {
		r    SetupRequest
		want string
	}{
		"modules":  {SetupRequest{KernelModules: []KernelModule{{Name: "bad"}}}, "kernel_modules[0]: no such module"},
		"hooks":    {SetupRequest{GuestHookPath: "hooks"}, "guest_hook_path"},
		"id":       {SetupRequest{ID: "../x"}, "sandbox_id"},
		"hostname": {SetupRequest{Hostname: "a b"}, "hostname"},
		"long":     {SetupRequest{Hostname: strings.Repeat("x", 65)}, "hostname"},
	} {
		if err := f.Setup(t.Context(), tc.r); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := f.Setup(t.Context(), SetupRequest{Hostname: "a", Storages: []storage.Storage{{Source: "fail"}}}); err == nil {
		t.Error("set up with a failing storage")
	}
	if left := mounts(t, filepath.Dir(f.run)); len(left) != 0 {
		t.Errorf("a failed setup left %v", left)
	}
	if err := f.Setup(t.Context(), SetupRequest{Hostname: "b"}); err != nil { // as if it were the first
		t.Error(err)
	}
}

// specOf tells what the driver was asked for.
func (f *fixture) specOf(t *testing.T, r CreateRequest) map[specs.LinuxNamespaceType]string {
	t.Helper()
	paths := map[specs.LinuxNamespaceType]string{}
	c := f.create(t, r)
	for _, n := range c.Spec().Linux.Namespaces {
		if _, twice := paths[n.Type]; twice {
			t.Errorf("namespace %s twice", n.Type)
		}
		paths[n.Type] = n.Path
	}
	if c.Spec().Hostname != "" {
		t.Error("the container would rename the pod")
	}
	return paths
}

func TestNamespaces(t *testing.T) {
	f := newFixture(t)
	if err := f.Setup(t.Context(), SetupRequest{ID: "pod1", Hostname: "web-0"}); err != nil {
		t.Fatal(err)
	}
	ns := func(kind string) string { return filepath.Join(f.deps.Namespaces, kind) }
	r := f.request(t, "pod1")
	r.Spec.Hostname = "web-0"
	first := f.specOf(t, r)
	if first["ipc"] != ns("ipc") || first["uts"] != ns("uts") || first["pid"] != "" {
		t.Errorf("the first one joins %v", first)
	}
	if _, has := first["network"]; has {
		t.Error("a network namespace of its own would have no network")
	}
	if err := pinned(ns("pid")); err != nil {
		t.Error(err)
	}
	r = f.request(t, "app")
	r.SharePID = true
	r.Spec.Linux.Namespaces = append(r.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.PIDNamespace, Path: "/proc/1/ns/pid"})
	if got := f.specOf(t, r); got["pid"] != ns("pid") {
		t.Errorf("the second one joins %v", got)
	}
	if got := f.specOf(t, f.request(t, "own")); got["pid"] != "" {
		t.Errorf("one that shares no pids joins %v", got)
	}
	if err := f.Remove(t.Context(), "pod1"); err != nil {
		t.Fatal(err)
	}
	r = f.request(t, "late")
	r.SharePID = true
	if err := f.Create(t.Context(), r); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("joined a namespace without init: %v", err)
	}
}

func TestNamespacesWithoutSetup(t *testing.T) {
	f := newFixture(t)
	r := f.request(t, "c1")
	r.Spec.Hostname = "keep"
	c := f.create(t, r)
	if c.Spec().Hostname != "keep" {
		t.Error("a container with a name of its own lost it")
	}
	for _, n := range c.Spec().Linux.Namespaces {
		if n.Path != "" {
			t.Errorf("joins %+v", n)
		}
	}
}

func TestRemoveWhileCreating(t *testing.T) {
	f := newFixture(t)
	result := make(chan error)
	go func() { result <- f.Create(t.Context(), f.request(t, "c1").with("wait")) }()
	<-f.storages.waiting
	if err := f.Remove(t.Context(), "c1"); err != nil {
		t.Error(err)
	}
	if err := <-result; !errors.Is(err, errRemoved) {
		t.Errorf("create: %v", err)
	}
	f.clean(t, f.run)
}

// Removal goes on when its caller gave up, and a second caller joins it.
func TestLateRemove(t *testing.T) {
	f := newFixture(t)
	f.create(t, f.request(t, "c1").with("slow"))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := f.Remove(ctx, "c1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	<-f.storages.waiting
	if err := f.Create(t.Context(), f.request(t, "c1")); !errdefs.IsAlreadyExists(err) {
		t.Errorf("create meanwhile: %v", err)
	}
	result := make(chan error)
	go func() { result <- f.Remove(t.Context(), "c1") }()
	close(f.storages.release)
	if err := <-result; err != nil && !errdefs.IsNotFound(err) {
		t.Error(err)
	}
	f.clean(t, f.run)
}

func TestDestroy(t *testing.T) {
	f := newFixture(t)
	if err := f.Setup(t.Context(), SetupRequest{Hostname: "h"}); err != nil {
		t.Fatal(err)
	}
	c := f.create(t, f.request(t, "c1"))
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	result := make(chan error)
	go func() { result <- f.Create(t.Context(), f.request(t, "c2").with("wait")) }()
	<-f.storages.waiting
	for range 2 {
		if err := f.Destroy(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := <-result; !errors.Is(err, errRemoved) {
		t.Errorf("create: %v", err)
	}
	if !f.storages.ended {
		t.Error("storages were not released")
	}
	if err := f.Create(t.Context(), f.request(t, "c3")); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("create after the end: %v", err)
	}
	f.clean(t, filepath.Dir(f.run))
}

func TestNextOOM(t *testing.T) {
	f := newFixture(t)
	if err := f.Setup(t.Context(), SetupRequest{ID: "pod1"}); err != nil {
		t.Fatal(err)
	}
	type event struct {
		id  string
		err error
	}
	ctx, cancel := context.WithCancel(t.Context())
	events := make(chan event)
	go func() {
		for {
			id, err := f.NextOOM(ctx)
			events <- event{id, err}
			if err != nil {
				return
			}
		}
	}()
	infra := f.request(t, "pod1")
	infra.Spec.Annotations = map[string]string{"io.kubernetes.cri.container-type": "sandbox"}
	f.create(t, infra)
	for _, id := range []string{"c1", "c2", "c3"} {
		f.create(t, f.request(t, id)) // while somebody waits
	}
	f.driver.Jail("pod1").OOM()
	for _, id := range []string{"c2", "c1"} {
		f.driver.Jail(id).OOM()
		if e := <-events; e.id != id || e.err != nil {
			t.Errorf("got %+v, want %s", e, id)
		}
	}
	if err := f.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case e := <-events:
		t.Errorf("the end of the sandbox was answered with %+v", e)
	case <-time.After(20 * time.Millisecond):
	}
	cancel()
	if e := <-events; !errors.Is(e.err, context.Canceled) {
		t.Errorf("got %+v", e)
	}
}

// A container without a pod has the id of its sandbox.
func TestOOMOfSingleContainer(t *testing.T) {
	f := newFixture(t)
	if err := f.Setup(t.Context(), SetupRequest{ID: "c1"}); err != nil {
		t.Fatal(err)
	}
	f.create(t, f.request(t, "c1"))
	f.driver.Jail("c1").OOM()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if id, err := f.NextOOM(ctx); id != "c1" || err != nil {
		t.Errorf("got %q, %v", id, err)
	}
}

// A kill that nobody asked about in time is reported after the removal.
func TestOOMOutlivesContainer(t *testing.T) {
	f := newFixture(t)
	f.create(t, f.request(t, "c1"))
	f.driver.Jail("c1").OOM()
	if err := f.Remove(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	if id, err := f.NextOOM(t.Context()); id != "c1" || err != nil {
		t.Errorf("got %s, %v", id, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if id, err := f.NextOOM(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("reported again: %s, %v", id, err)
	}
}
