package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// watching makes a guest whose mirrors follow quickly.
func watching(t *testing.T) *guest {
	g := newGuest(t)
	g.handlers["watchable-bind"].(*watchable).interval = time.Millisecond
	return g
}

func (g *guest) watched(name string) Storage {
	return Storage{Driver: "watchable-bind", Source: g.path("shared/containers/" + name), FSType: "bind",
		MountPoint: g.path("shared/containers/watchable/" + name), Options: []string{"ro"}}
}

// follow waits until the file holds text.
func follow(t *testing.T, path, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		b, err := os.ReadFile(path)
		if err == nil && string(b) == text {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s holds %q, %v, not %q", path, b, err, text)
		case <-time.After(time.Millisecond):
		}
	}
}

func TestWatchable(t *testing.T) {
	g := watching(t)
	g.write("shared/containers/c1-config/key", "one")
	g.write("shared/containers/c1-hosts", "hosts")
	g.write("shared/containers/passthrough/c2-config/key", "pass")
	pass := g.watched("c2")
	pass.Source, pass.MountPoint = g.path("shared/containers/passthrough/c2-config"), g.path("shared/containers/passthrough/watchable/c2")
	g.add("c1", g.watched("c1-config"), g.watched("c1-hosts"))
	g.add("c2", g.watched("c1-config"), pass)
	follow(t, g.path("shared/containers/watchable/c1-config/key"), "one")
	follow(t, g.path("shared/containers/watchable/c1-hosts"), "hosts")
	follow(t, g.path("shared/containers/passthrough/watchable/c2/key"), "pass")
	if f := g.flags(g.path("shared/containers/watchable")); !strings.Contains(f, "nosuid,nodev") {
		t.Errorf("mirrors are mounted with %s", f)
	}
	g.write("shared/containers/c1-config/key", "two")
	follow(t, g.path("shared/containers/watchable/c1-config/key"), "two")

	if err := g.Release(t.Context(), "c1"); err != nil {
		t.Error(err)
	}
	g.write("shared/containers/c1-config/key", "three")
	follow(t, g.path("shared/containers/watchable/c1-config/key"), "three")
	if _, err := os.Stat(g.path("shared/containers/watchable/c1-hosts")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("mirror of a container that is gone: %v", err)
	}
	if err := g.Release(t.Context(), "c2"); err != nil {
		t.Error(err)
	}
	for _, dir := range []string{"shared/containers/watchable", "shared/containers/passthrough/watchable"} {
		if g.mounted(dir) {
			t.Errorf("%s is still mounted", dir)
		}
	}
}

// TestWatchableFallsBack binds what is too large, so that containers see it,
// though they get no events.
func TestWatchableFallsBack(t *testing.T) {
	g := watching(t)
	for i := range 20 {
		g.write(fmt.Sprintf("shared/containers/many/%d", i), "x")
	}
	g.write("shared/containers/big", strings.Repeat("x", 2<<20))
	g.add("c1", g.watched("many"), g.watched("big"))
	for _, name := range []string{"many", "big"} {
		if !g.mounted("shared/containers/watchable/" + name) {
			t.Errorf("%s is not bound", name)
		}
	}
	g.write("shared/containers/many/0", "y")
	if b, err := os.ReadFile(g.path("shared/containers/watchable/many/0")); string(b) != "y" || err != nil {
		t.Errorf("read %q, %v", b, err)
	}
	if err := g.Release(t.Context(), "c1"); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(g.path("shared/containers/many/19")); string(b) != "x" || err != nil {
		t.Errorf("the source lost its content: %q, %v", b, err)
	}
}

func TestWatchableRefuses(t *testing.T) {
	g := watching(t)
	g.write("shared/containers/conf/key", "x")
	if err := unix.Mkfifo(g.path("shared/containers/pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc", g.path("shared/containers/link")); err != nil {
		t.Fatal(err)
	}
	g.write("shared/containers/watchable/.keep", "")
	base := g.watched("conf")
	for _, tt := range []struct {
		name   string
		change func(*Storage)
		class  func(error) bool
	}{
		{"another directory", func(s *Storage) { s.MountPoint = g.path("shared/containers/x") }, errdefs.IsPermissionDenied},
		{"deeper", func(s *Storage) { s.MountPoint += "/x" }, errdefs.IsPermissionDenied},
		{"the directory itself", func(s *Storage) { s.MountPoint = filepath.Dir(s.MountPoint) }, errdefs.IsPermissionDenied},
		{"source outside", func(s *Storage) { s.Source = "/etc" }, errdefs.IsInvalidArgument},
		{"source of another container", func(s *Storage) { s.Source = g.path("c1/rootfs") }, errdefs.IsInvalidArgument},
		{"source through a link", func(s *Storage) { s.Source = g.path("shared/containers/link/ssl") }, errdefs.IsPermissionDenied},
		{"source that is a link", func(s *Storage) { s.Source = g.path("shared/containers/link") }, errdefs.IsPermissionDenied},
		{"source that is a pipe", func(s *Storage) { s.Source = g.path("shared/containers/pipe") }, errdefs.IsInvalidArgument},
		{"absent source", func(s *Storage) { s.Source += "x" }, func(err error) bool { return errors.Is(err, os.ErrNotExist) }},
		{"group", func(s *Storage) { s.FSGroup = &FSGroup{} }, errdefs.IsInvalidArgument},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := &guest{T: t, Manager: g.Manager, root: g.root}
			in.refused("c1", with(base, tt.change), tt.class)
		})
	}
}
