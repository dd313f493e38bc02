package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/coffer-cc/coffer/agent/container"
	"github.com/coffer-cc/coffer/agent/devices"
	"github.com/coffer-cc/coffer/mount/storage"
)

func TestLife(t *testing.T) {
	f := newFixture(t)
	r := f.request(t, "c1").with("volume")
	r.Spec.Annotations["io.kubernetes.cri.container-name"] = "web"
	c := f.create(t, r)
	rootfs := filepath.Join(f.run, "c1", "rootfs")
	if got, err := os.ReadFile(filepath.Join(rootfs, "mark")); string(got) != "c1" {
		t.Errorf("root is not in the bundle: %q, %v", got, err)
	}
	if got := c.Spec().Root.Path; got != rootfs {
		t.Errorf("root.path is %s", got)
	}
	st, err := os.Stat(filepath.Join(f.run, "c1", "config.json"))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("config.json: %v, %v", st, err)
	}
	want := ContainerInfo{ID: "c1", Name: "web", State: container.StateCreated, Pid: c.InitPid()}
	if got := f.List(); len(got) != 1 || got[0] != want {
		t.Errorf("listed %+v, want %+v", got, want)
	}
	if p, err := f.Process("c1", "c1"); err != nil || p.Pid() != c.InitPid() {
		t.Errorf("init: %v", err)
	}
	if _, err := f.Process("c1", "exec9"); !errdefs.IsNotFound(err) {
		t.Errorf("unknown exec: %v", err)
	}
	if err := f.Remove(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	if len(f.List()) != 0 || len(f.storages.owners()) != 0 {
		t.Errorf("left: %v, %v", f.List(), f.storages.owners())
	}
	f.clean(t, f.run)
	f.create(t, f.request(t, "c1")) // the id is free again
}

func TestUnknownContainer(t *testing.T) {
	f := newFixture(t)
	for name, tc := range map[string]struct {
		err   error
		class func(error) bool
	}{
		"remove":    {f.Remove(t.Context(), "c9"), errdefs.IsNotFound},
		"container": {second(f.Container("c9")), errdefs.IsInvalidArgument},
		"process":   {second(f.Process("c9", "")), errdefs.IsInvalidArgument},
	} {
		if !tc.class(tc.err) || !strings.Contains(tc.err.Error(), "Invalid container id") {
			t.Errorf("%s: %v", name, tc.err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestCreateRefuses(t *testing.T) {
	f := newFixture(t)
	for name, change := range map[string]func(*CreateRequest){
		"no spec":        func(r *CreateRequest) { r.Spec = nil },
		"no process":     func(r *CreateRequest) { r.Spec.Process = nil },
		"no root":        func(r *CreateRequest) { r.Spec.Root = nil },
		"no linux":       func(r *CreateRequest) { r.Spec.Linux = nil },
		"no args":        func(r *CreateRequest) { r.Spec.Process.Args = nil },
		"short id":       func(r *CreateRequest) { r.ID = "c" },
		"dots":           func(r *CreateRequest) { r.ID = "../c1" },
		"dot":            func(r *CreateRequest) { r.ID = ".c" },
		"long id":        func(r *CreateRequest) { r.ID = strings.Repeat("c", 129) },
		"id of others":   func(r *CreateRequest) { r.ID = "shared" },
		"id of images":   func(r *CreateRequest) { r.ID = "image" },
		"root elsewhere": func(r *CreateRequest) { r.Spec.Root.Path = "/etc" },
		"root above":     func(r *CreateRequest) { r.Spec.Root.Path = f.run + "/../run/shared" },
		"root relative":  func(r *CreateRequest) { r.Spec.Root.Path = "rootfs" },
		"root nobody mounted": func(r *CreateRequest) {
			r.Spec.Root.Path = filepath.Join(f.run, "c1", "rootfs")
		},
		"root in images": func(r *CreateRequest) {
			r.Spec.Root.Path = filepath.Join(f.run, "image", "layers", "1")
			os.MkdirAll(r.Spec.Root.Path, 0o755)
		},
		"devices": func(r *CreateRequest) { r.Devices = []devices.Device{{ID: "02", Type: "blk", ContainerPath: "/dev/x"}} },
	} {
		t.Run(name, func(t *testing.T) {
			r := f.request(t, "c1")
			change(&r)
			err := f.Create(t.Context(), r)
			os.RemoveAll(filepath.Join(f.run, "image"))
			if !errdefs.IsInvalidArgument(err) && !errdefs.IsNotImplemented(err) && !errdefs.IsPermissionDenied(err) {
				t.Errorf("got %v", err)
			}
			f.clean(t, f.run)
		})
	}
}

// Whatever fails on the way, nothing is left and the id is free.
func TestCreateIsAllOrNothing(t *testing.T) {
	broken := errors.New("broken")
	for name, tc := range map[string]struct {
		change func(*fixture, *CreateRequest)
		want   string
	}{
		"storage": {func(_ *fixture, r *CreateRequest) { *r = r.with("volume").with("fail") }, "storage failed"},
		"driver": {func(f *fixture, r *CreateRequest) {
			f.driver.FailCreate = func(string, *specs.Spec) error { return broken }
			*r = r.with("volume")
		}, "broken"},
		"program": {func(_ *fixture, r *CreateRequest) { r.Spec.Process.Args = []string{"/no/such/program"} }, "executable file"},
		"root is a link": {func(f *fixture, r *CreateRequest) {
			os.RemoveAll(r.Spec.Root.Path)
			os.Symlink("/etc", r.Spec.Root.Path)
		}, "symlink"},
		"root is a file": {func(f *fixture, r *CreateRequest) { r.Spec.Root.Path += "/mark" }, "not a directory"},
		"no pid namespace": {func(f *fixture, r *CreateRequest) {
			f.pidFrom = &entry{} // as if another one was first
			r.SharePID = true
		}, "sandbox_pidns"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			r := f.request(t, "c1")
			tc.change(f, &r)
			if err := f.Create(t.Context(), r); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want %s", err, tc.want)
			}
			f.clean(t, f.run)
			if got := f.storages.owners(); len(got) != 0 {
				t.Errorf("storages are held by %v", got)
			}
			f.driver.FailCreate, f.pidFrom = nil, nil
			os.RemoveAll(filepath.Join(f.run, "shared"))
			f.create(t, f.request(t, "c1"))
		})
	}
}

func TestDuplicate(t *testing.T) {
	f := newFixture(t)
	c := f.create(t, f.request(t, "c1").with("volume"))
	if err := f.Create(t.Context(), f.request(t, "c1").with("fail")); !errdefs.IsAlreadyExists(err) {
		t.Errorf("got %v", err)
	}
	if again, err := f.Container("c1"); again != c || err != nil || c.State() != container.StateCreated {
		t.Errorf("the first one suffered: %v, %v", c.State(), err)
	}
	if got := f.storages.owners(); !slices.Equal(got, []string{"c1"}) {
		t.Errorf("storages are held by %v", got)
	}
}

// A duplicate is refused while the first one is still being created, and the
// first one is not found by other calls until it is.
func TestDuplicateWhileCreating(t *testing.T) {
	f := newFixture(t)
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func() { result <- f.Create(ctx, f.request(t, "c1").with("wait")) }()
	<-f.storages.waiting
	if err := f.Create(t.Context(), f.request(t, "c1")); !errdefs.IsAlreadyExists(err) {
		t.Errorf("got %v", err)
	}
	if _, err := f.Container("c1"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("got %v", err)
	}
	f.create(t, f.request(t, "c2")) // others do not wait
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	f.create(t, f.request(t, "c1"))
}

func TestCreateEndsWithItsDeadline(t *testing.T) {
	f := newFixture(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := f.Create(ctx, f.request(t, "c1").with("volume").with("wait")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	f.clean(t, f.run)
	late, cancel := context.WithCancel(t.Context())
	f.driver.FailCreate = func(string, *specs.Spec) error { cancel(); return nil }
	if err := f.Create(late, f.request(t, "c1")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	f.clean(t, f.run)
}

func TestPoison(t *testing.T) {
	for name, source := range map[string]string{"undo": "keep", "storages": "half"} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.create(t, f.request(t, "c1"))
			r := f.request(t, "c2", "/no/such/program").with(source)
			if err := f.Create(t.Context(), r); err == nil {
				t.Fatal("created")
			}
			if err := f.Create(t.Context(), f.request(t, "c3")); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "inconsistent") {
				t.Errorf("got %v", err)
			}
			if err := f.Setup(t.Context(), SetupRequest{}); !errdefs.IsFailedPrecondition(err) {
				t.Errorf("got %v", err)
			}
			if err := f.Remove(t.Context(), "c1"); err != nil { // what is there can go
				t.Error(err)
			}
		})
	}
}

func TestProcessOfGuestRoot(t *testing.T) {
	image := &storage.Image{Reference: "r/i:1", ManifestDigest: "sha256:00", Config: v1.Image{Config: v1.ImageConfig{
		Entrypoint: []string{"sleep"}, Cmd: []string{"900"}, Env: []string{"A=1", "PATH=/usr/bin:/bin"}, WorkingDir: "/tmp", User: "7:8",
	}}}
	pause := &specs.Process{Args: []string{"sleep", "800"}, Env: []string{"P=1"}}
	for _, tc := range []struct {
		name    string
		root    guestRoot
		args    []string
		sandbox string
		want    specs.Process
		fails   string
	}{
		{"the host's process", guestRoot{image: image}, []string{"sleep", "700"}, "",
			specs.Process{Args: []string{"sleep", "700"}, Env: []string{"A=2"}}, ""},
		{"the image's process", guestRoot{image: image}, nil, "",
			specs.Process{Args: []string{"sleep", "900"}, Env: []string{"A=2", "PATH=/usr/bin:/bin"}, Cwd: "/tmp", User: specs.User{UID: 7, GID: 8, Username: "7:8"}}, ""},
		{"nothing to run", guestRoot{image: &storage.Image{}}, nil, "", specs.Process{}, "Args"},
		{"pause", guestRoot{pause: pause}, []string{"/evil"}, "io.kubernetes.cri.container-type", *pause, ""},
		{"pause by CRI-O", guestRoot{pause: pause}, nil, "io.kubernetes.cri-o.ContainerType", *pause, ""},
		{"pause by storage alone", guestRoot{pause: pause}, []string{"sleep", "1"}, "", specs.Process{}, "annotations do not"},
		{"pause by annotation alone", guestRoot{image: image}, []string{"sleep", "1"}, "io.kubernetes.cri.container-type", specs.Process{}, "pulls an image"},
		{"neither", guestRoot{}, []string{"sleep", "1"}, "", specs.Process{}, "neither"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFixture(t)
			r := f.request(t, "c1")
			r.Spec.Process.Args, r.Spec.Process.Env, r.Spec.Process.Cwd = tc.args, []string{"A=2"}, ""
			if tc.sandbox != "" {
				r.Spec.Annotations[tc.sandbox] = "sandbox"
			}
			tc.root.path = filepath.Join(f.run, "c1", "rootfs")
			if tc.root.image != nil {
				tc.root.image.Rootfs = f.run
			}
			r.Spec.Root.Path = tc.root.path
			f.storages.roots = map[string]storage.Volume{"image": tc.root}
			r = r.with("image")
			err := f.Create(t.Context(), r)
			if tc.fails != "" {
				if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), tc.fails) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			c, _ := f.Container("c1")
			if got := fmt.Sprintf("%+v", *c.Spec().Process); got != fmt.Sprintf("%+v", tc.want) {
				t.Errorf("runs %s, want %+v", got, tc.want)
			}
			if tc.root.image != nil && f.List()[0].Image != (Image{"r/i:1", "sha256:00"}) {
				t.Errorf("listed %+v", f.List())
			}
		})
	}
}

func TestManyLives(t *testing.T) {
	f := newFixture(t)
	var wg sync.WaitGroup
	for i := range 32 {
		r := f.request(t, fmt.Sprintf("c%02d", i)).with("volume")
		wg.Go(func() {
			if err := f.Create(t.Context(), r); err != nil {
				t.Error(err)
				return
			}
			c, err := f.Container(r.ID)
			if err == nil {
				err = c.Start(t.Context())
			}
			if err == nil {
				err = f.Remove(t.Context(), r.ID)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(f.List()); n != 0 {
		t.Errorf("%d containers are left", n)
	}
}

// judge refuses images and remembers what it was asked.
type judge struct {
	asked []ImageFacts
	err   error
}

func (j *judge) Judge(_ context.Context, f ImageFacts) error {
	j.asked = append(j.asked, f)
	return j.err
}

// The image that was pulled is judged with what will run of it; a refusal takes
// the container back with all that was made for it.
func TestImageIsJudged(t *testing.T) {
	f := newFixture(t)
	j := &judge{err: errdefs.ErrPermissionDenied}
	f.deps.Images = j
	img := &storage.Image{Reference: "app", ManifestDigest: "sha256:1", Config: v1.Image{Config: v1.ImageConfig{Entrypoint: []string{"sleep", "1000"}}}}
	pull := func(id string) CreateRequest {
		r := f.request(t, id)
		img.Rootfs = r.Spec.Root.Path
		f.storages.roots = map[string]storage.Volume{"app": guestRoot{volume{filepath.Join(f.run, id, "rootfs")}, img, nil}}
		r.Spec.Process.Args = nil
		return r.with("app")
	}
	if err := f.Create(t.Context(), pull("c1")); !errdefs.IsPermissionDenied(err) {
		t.Fatalf("got %v", err)
	}
	if got := f.storages.owners(); len(got) != 0 {
		t.Errorf("storages are held by %v", got)
	}
	f.clean(t, f.run)
	if len(j.asked) != 1 || j.asked[0].ContainerID != "c1" || j.asked[0].Image.ManifestDigest != "sha256:1" || !slices.Equal(j.asked[0].Process.Args, []string{"sleep", "1000"}) {
		t.Errorf("asked about %+v", j.asked)
	}
	j.err = nil
	f.create(t, f.request(t, "c2")) // no image, no question
	if len(j.asked) != 1 {
		t.Errorf("asked about %+v", j.asked)
	}
}
