package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/agent/container"
	"github.com/coffer-cc/coffer/mount/storage"
)

// pod is a sandbox with real containers and real mounts.
type pod struct {
	*Sandbox
	dir, cgroup string
}

func newPod(t *testing.T) *pod {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("real containers need root")
	}
	if _, err := os.Stat("/bin/busybox"); err != nil {
		t.Skip("real containers need /bin/busybox")
	}
	dir := t.TempDir()
	run := filepath.Join(dir, "run")
	if err := os.Mkdir(run, 0o755); err != nil {
		t.Fatal(err)
	}
	sd := storage.Deps{Root: run}
	p := &pod{dir: dir, cgroup: fmt.Sprintf("coffer-sandbox-test-%d", os.Getpid())}
	p.Sandbox = New(Deps{
		Containers: container.NewLibcontainer(container.LibcontainerOptions{StateRoot: filepath.Join(dir, "state")}),
		Storage:    storage.NewManager(sd, storage.Handlers(sd)),
		SetDNS:     func(context.Context, []string) error { return nil },
		Run:        run, Namespaces: filepath.Join(dir, "ns"),
	})
	// The agent runs like this, and containers have to start all the same.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Destroy(context.Background()); err != nil { // again, unless the test failed
			t.Error(err)
		}
		if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
			t.Error(err)
		}
		parents, _ := filepath.Glob("/sys/fs/cgroup/*/" + p.cgroup)
		for _, c := range append(parents, "/sys/fs/cgroup/"+p.cgroup) {
			if err := os.Remove(c); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Error(err)
			}
		}
	})
	return p
}

// request is what a shim sends for a container with a shared root.
func (p *pod) request(t *testing.T, id, script string) CreateRequest {
	t.Helper()
	root := filepath.Join(p.deps.Run, "shared", "containers", id, "rootfs")
	for _, d := range []string{"bin", "proc", "dev", "sys", "etc"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "bin", "busybox"), busybox, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "ps", "hostname", "sleep", "df", "touch", "mkdir", "mount", "head"} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	return CreateRequest{ID: id, Spec: &specs.Spec{
		Version:  "1.0.2",
		Hostname: "from-" + id,
		Process:  &specs.Process{Args: []string{"/bin/sh", "-c", script}, Cwd: "/", Env: []string{"PATH=/bin"}},
		Root:     &specs.Root{Path: root, Readonly: true},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755"}},
			{Destination: "/dev/shm", Type: "bind", Source: filepath.Join(p.deps.Run, "sandbox", "shm"), Options: []string{"rbind"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: "/" + p.cgroup + "/" + id,
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.MountNamespace},
			},
		},
	}}
}

func (p *pod) start(t *testing.T, r CreateRequest) *container.Process {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := p.Create(ctx, r); err != nil {
		t.Fatal(err)
	}
	c, err := p.Container(r.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	init, err := p.Process(r.ID, "")
	if err != nil {
		t.Fatal(err)
	}
	return init
}

func output(t *testing.T, p *container.Process) string {
	t.Helper()
	var all strings.Builder
	for _, read := range []func(context.Context, int) ([]byte, error){p.ReadStdout, p.ReadStderr} {
		for {
			b, err := read(t.Context(), 4096)
			all.Write(b)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	return all.String()
}

// openFiles counts the descriptors of this process.
func openFiles(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// TestPod plays a pod as a shim does: setup, pause, an application that shares
// its processes, removal. The first round is for what the process opens once.
func TestPod(t *testing.T) {
	files := 0
	for round := range 2 {
		p := newPod(t)
		before := mounts(t, "/")
		playPod(t, p)
		if after := mounts(t, "/"); len(after) != len(before) {
			t.Errorf("mounts before %v\nand after %v", before, after)
		}
		if round > 0 && openFiles(t) != files {
			t.Errorf("%d files are open, %d were", openFiles(t), files)
		}
		files = openFiles(t)
	}
}

func playPod(t *testing.T, p *pod) {
	shm := storage.Storage{
		Driver: "ephemeral", Source: "shm", FSType: "tmpfs", MountPoint: filepath.Join(p.deps.Run, "sandbox", "shm"),
		Options: []string{"noexec", "nosuid", "nodev", "mode=1777", "size=1048576"},
	}
	setup := SetupRequest{ID: "pod1", Hostname: "web-0", Storages: []storage.Storage{shm}}
	if err := p.Setup(t.Context(), setup); err != nil {
		t.Fatal(err)
	}
	p.start(t, p.request(t, "pod1", "exec sleep 1000"))
	// The first container may take a moment to become its program.
	r := p.request(t, "app", `hostname; until ps | busybox grep '[0-9]  *sleep 1000$'; do :; done; touch /dev/shm/x && echo shared; touch /x; exit 3`)
	r.SharePID = true
	init := p.start(t, r)
	out := output(t, init)
	for _, want := range []string{"web-0\n", "sleep 1000", "shared\n", "Read-only file system"} {
		if !strings.Contains(out, want) {
			t.Errorf("printed %q, want %q in it", out, want)
		}
	}
	if strings.Contains(out, "from-") {
		t.Errorf("a container renamed the pod: %q", out)
	}
	if code, err := init.Wait(t.Context()); code != 3 || err != nil {
		t.Errorf("exit %d, %v", code, err)
	}
	if _, err := os.Stat(filepath.Join(shm.MountPoint, "x")); err != nil {
		t.Errorf("shm is not the pod's: %v", err)
	}
	for _, id := range []string{"app", "pod1"} {
		if err := p.Remove(t.Context(), id); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(p.deps.Run, id)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("bundle of %s is left: %v", id, err)
		}
	}
	if err := p.Destroy(t.Context()); err != nil {
		t.Error(err)
	}
}

// A create that fails in the driver leaves nothing, and the id is free.
func TestRealCreateFails(t *testing.T) {
	p := newPod(t)
	before := len(mounts(t, "/"))
	r := p.request(t, "c1", "")
	r.Spec.Mounts = r.Spec.Mounts[:2]
	r.Spec.Process.Args = []string{"/no/such/program"}
	if err := p.Create(t.Context(), r); err == nil {
		t.Fatal("created")
	}
	if after := len(mounts(t, "/")); after != before {
		t.Errorf("%d mounts, %d before", after, before)
	}
	os.RemoveAll(filepath.Join(p.deps.Run, "shared"))
	r = p.request(t, "c1", "hostname")
	r.Spec.Mounts = r.Spec.Mounts[:2]
	init := p.start(t, r)
	if got := output(t, init); got != "from-c1\n" {
		t.Errorf("printed %q", got)
	}
	if err := p.Destroy(t.Context()); err != nil {
		t.Error(err)
	}
}
