package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/agent/container"
	"github.com/coffer-cc/coffer/agent/container/containertest"
	"github.com/coffer-cc/coffer/mount"
	"github.com/coffer-cc/coffer/mount/storage"
)

// storages keeps the ledger of a Manager without mounting anything. What a
// storage's Source says decides what happens:
//
//	fail     Add fails
//	half     Add fails and could not be undone
//	wait     Add waits for its ctx, after a note on waiting
//	keep     Release fails as long as it is held
//	slow     Release waits for release
type storages struct {
	roots   map[string]storage.Volume // by source
	waiting chan string
	release chan struct{}

	mu    sync.Mutex
	owned map[string][]storage.Storage
	dns   [][]string
	ended bool
}

type volume struct{ path string }

func (v volume) Path() string                 { return v.path }
func (v volume) Detach(context.Context) error { return nil }

// guestRoot is a root file system that the guest made.
type guestRoot struct {
	volume
	image *storage.Image
	pause *specs.Process
}

func (g guestRoot) Image() (storage.Image, bool) {
	if g.image == nil {
		return storage.Image{}, false
	}
	return *g.image, true
}

func (g guestRoot) Pause() (*specs.Process, bool) { return g.pause, g.pause != nil }

func (s *storages) Add(ctx context.Context, owner string, ss []storage.Storage) ([]storage.Volume, error) {
	var out []storage.Volume
	for _, st := range ss {
		switch st.Source {
		case "fail":
			return nil, errors.New("storage failed")
		case "half":
			return nil, &storage.UndoError{Cause: errors.New("storage failed"), Undo: errors.New("busy")}
		case "wait":
			s.waiting <- owner
			<-ctx.Done()
			return nil, ctx.Err()
		}
		v, ok := s.roots[st.Source]
		if !ok {
			v = volume{st.MountPoint}
		}
		out = append(out, v)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owned[owner] = ss
	return out, nil
}

func (s *storages) Release(_ context.Context, owner string) error {
	s.mu.Lock()
	ss := s.owned[owner]
	delete(s.owned, owner)
	s.mu.Unlock()
	for _, st := range ss {
		switch st.Source {
		case "keep":
			return errors.New("busy")
		case "slow":
			s.waiting <- owner
			<-s.release
		}
	}
	return nil
}

func (s *storages) ReleaseAll(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	clear(s.owned)
	return nil
}

func (s *storages) UpdateEphemeral(context.Context, []storage.Storage) error { return nil }

func (s *storages) owners() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for o := range s.owned {
		out = append(out, o)
	}
	slices.Sort(out)
	return out
}

// fixture is a sandbox over plain processes. At the end of the test nothing may
// be left of it.
type fixture struct {
	*Sandbox
	driver   *containertest.Driver
	storages *storages
	run      string
	modules  []KernelModule // loaded
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to mount")
	}
	dir := t.TempDir()
	f := &fixture{
		driver: &containertest.Driver{},
		storages: &storages{
			owned: map[string][]storage.Storage{}, waiting: make(chan string, 8), release: make(chan struct{}),
		},
		run: filepath.Join(dir, "run"),
	}
	f.Sandbox = New(Deps{
		Containers: f.driver, Storage: f.storages, Run: f.run, Reserved: []string{"image"}, Namespaces: filepath.Join(dir, "ns"),
		SetDNS: func(_ context.Context, lines []string) error {
			f.storages.dns = append(f.storages.dns, lines)
			return nil
		},
		LoadModule: func(_ context.Context, m KernelModule) error {
			if m.Name == "bad" {
				return errors.New("no such module")
			}
			f.modules = append(f.modules, m)
			return nil
		},
	})
	t.Cleanup(func() {
		if err := f.Destroy(context.Background()); err != nil {
			t.Error(err)
		}
		f.clean(t, dir)
	})
	return f
}

// clean checks that no container, no mount and no bundle is left.
func (f *fixture) clean(t *testing.T, dir string) {
	t.Helper()
	if n := f.driver.Live(); n != 0 {
		t.Errorf("%d containers are left", n)
	}
	if left := mounts(t, dir); len(left) != 0 {
		t.Errorf("mounts are left: %v", left)
	}
	entries, _ := os.ReadDir(f.run)
	for _, e := range entries {
		if e.Name() != "shared" {
			t.Errorf("%s is left", e.Name())
		}
	}
}

func mounts(t *testing.T, dir string) []string {
	t.Helper()
	table, err := mount.Table(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range table {
		out = append(out, e.Target)
	}
	return out
}

// request asks for a container whose root the host shares.
func (f *fixture) request(t *testing.T, id string, args ...string) CreateRequest {
	t.Helper()
	root := filepath.Join(f.run, "shared", "containers", id, "rootfs")
	if err := os.MkdirAll(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "mark"), []byte(id), 0o600); err != nil {
		t.Fatal(err)
	}
	if len(args) == 0 {
		args = []string{"sleep", "1000"}
	}
	return CreateRequest{ID: id, Spec: &specs.Spec{
		Process: &specs.Process{Args: args, Cwd: "/"},
		Root:    &specs.Root{Path: root},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
			{Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.MountNamespace},
		}},
		Annotations: map[string]string{},
	}}
}

func (f *fixture) create(t *testing.T, r CreateRequest) *container.Container {
	t.Helper()
	if err := f.Create(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	c, err := f.Container(r.ID)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// with adds a storage whose source tells the fake what to do.
func (r CreateRequest) with(source string) CreateRequest {
	r.Storages = append(r.Storages, storage.Storage{Source: source, MountPoint: "/nowhere"})
	return r
}

func pinned(path string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return err
	}
	if st.Type != unix.NSFS_MAGIC {
		return fmt.Errorf("%s is no namespace", path)
	}
	return nil
}
