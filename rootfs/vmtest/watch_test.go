package vmtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

// TestWatchableBind changes a ConfigMap on the host, as the kubelet does, and
// sees a container that waits for inotify events wake up and read the new
// content. The share is a real virtio-fs, which carries no such events.
func TestWatchableBind(t *testing.T) {
	if inside() {
		t.Skip("the host's side of the share is needed")
	}
	g := Shared(t)
	b, err := prepare()
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(b.dir, "share", "watched-config")
	if err := os.RemoveAll(source); err != nil {
		t.Fatal(err)
	}
	revise(t, source, 0)
	build := exec.Command("go", "build", "-o", filepath.Join(b.dir, "share", "busybox", "rootfs", "bin", "awaitmove"), "./testdata/awaitmove")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build watching program: %v: %s", err, out)
	}
	s := &agentpb.Storage{Driver: "watchable-bind", Source: sharedDir + "watched-config", Fstype: "bind",
		Options: []string{"rbind", "rprivate", "ro"}, MountPoint: sharedDir + "watchable/watched-config"}
	spec := containerSpec("watcher", "sh", "-c", "cat /data/key; awaitmove /data; cat /data/key")
	spec.Mounts = append(spec.Mounts, &agentpb.Mount{Destination: "/data", Source: s.MountPoint, Type: "bind", Options: []string{"rbind", "ro"}})
	g.start(t, "watcher", spec, s)

	// The kubelet comes back until the container has seen it: the first changes
	// may be over before the container watches.
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(3 * time.Second)
		defer tick.Stop()
		for n := 1; ctx.Err() == nil; n++ {
			revise(t, source, n)
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	}()
	out := g.output(t, "watcher")
	stop()
	<-stopped
	if lines := strings.Fields(out); len(lines) != 2 || lines[1] == lines[0] || !strings.HasPrefix(lines[0], "revision-") {
		t.Errorf("got %q", out)
	}
}

// revise swaps the content of a ConfigMap volume by a rename.
func revise(t *testing.T, dir string, n int) {
	fresh := fmt.Sprintf("..%04d", n)
	old, _ := os.Readlink(filepath.Join(dir, "..data"))
	for _, do := range []func() error{
		func() error { return os.MkdirAll(filepath.Join(dir, fresh), 0o755) },
		func() error {
			return os.WriteFile(filepath.Join(dir, fresh, "key"), []byte(fmt.Sprintf("revision-%d\n", n)), 0o644)
		},
		func() error { return os.Symlink(fresh, filepath.Join(dir, "..data_tmp")) },
		func() error { return os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")) },
		func() error {
			if old != "" {
				return os.RemoveAll(filepath.Join(dir, old))
			}
			return os.Symlink("..data/key", filepath.Join(dir, "key"))
		},
	} {
		if err := do(); err != nil {
			t.Errorf("revision %d: %v", n, err)
		}
	}
}
