package storage

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/mount"
)

func pull(g *guest, cid, ref string, metadata map[string]string) Storage {
	text, err := json.Marshal(map[string]any{"metadata": metadata})
	if err != nil {
		g.Fatal(err)
	}
	return Storage{Driver: "image_guest_pull", Source: ref, FSType: "overlay", MountPoint: g.path(cid + "/rootfs"),
		DriverOptions: []string{"image_guest_pull=" + string(text)}}
}

func TestImageGuestPull(t *testing.T) {
	g := newGuest(t)
	s := pull(g, "c1", "registry.example/busybox:1", map[string]string{"io.kubernetes.cri.container-type": "container"})
	v := g.add("c1", s)[0].(Rootfs)
	if img, ok := v.Image(); !ok || img.ManifestDigest != "sha256:abc" || img.Reference != s.Source {
		t.Errorf("image %+v, %v", img, ok)
	}
	if _, ok := v.Pause(); ok {
		t.Error("an image is no pause bundle")
	}
	if got, err := os.ReadFile(g.path("c1/rootfs/ref")); string(got) != s.Source {
		t.Errorf("got %q, %v", got, err)
	}
	busy, err := os.Open(g.path("c1/rootfs"))
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	if err := g.Release(t.Context(), "c1"); err != nil || g.mounted("c1/rootfs") {
		t.Errorf("release: %v", err)
	}
	if g.images.held != 0 {
		t.Error("image still held")
	}
}

func TestImageGuestPullRefuses(t *testing.T) {
	g := newGuest(t)
	good := func() Storage { return pull(g, "c1", "busybox", map[string]string{}) }
	for _, tt := range []struct {
		name   string
		change func(*Storage)
	}{
		{"no option", func(s *Storage) { s.DriverOptions = nil }},
		{"two options", func(s *Storage) { s.DriverOptions = append(s.DriverOptions, s.DriverOptions[0]) }},
		{"other option", func(s *Storage) { s.DriverOptions = []string{"x=y"} }},
		{"not JSON", func(s *Storage) { s.DriverOptions = []string{"image_guest_pull={"} }},
		{"no metadata", func(s *Storage) { s.DriverOptions = []string{"image_guest_pull={}"} }},
		{"null", func(s *Storage) { s.DriverOptions = []string{"image_guest_pull=null"} }},
		{"huge", func(s *Storage) { s.DriverOptions[0] += strings.Repeat(" ", maxMetadata) }},
		{"two minds", func(s *Storage) {
			s.DriverOptions[0] = `image_guest_pull={"metadata":{"io.kubernetes.cri.container-type":"container","io.kubernetes.cri-o.ContainerType":"sandbox"}}`
		}},
		{"no reference", func(s *Storage) { s.Source = "" }},
		{"mount options", func(s *Storage) { s.Options = []string{"ro"} }},
		{"group", func(s *Storage) { s.FSGroup = &FSGroup{} }},
		{"shared", func(s *Storage) { s.Shared = true }},
		{"type", func(s *Storage) { s.FSType = "ext4" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := &guest{T: t, Manager: g.Manager, root: g.root}
			g.refused("c1", with(good(), tt.change), errdefs.IsInvalidArgument)
		})
	}
	g.images.fail = errors.New("manifest unknown")
	g.refused("c1", good(), func(err error) bool { return errors.Is(err, g.images.fail) })
}

// The host mounts something at a container's rootfs, or above it, before the
// container exists: the image must not be skipped, nor come to lie on it.
func TestParkedMountPoint(t *testing.T) {
	for _, at := range []string{"c1/rootfs", "c1"} {
		t.Run(at, func(t *testing.T) {
			g := newGuest(t)
			g.add("sandbox", Storage{Driver: "ephemeral", Source: "x", FSType: "tmpfs", MountPoint: g.path(at)})
			if at == "c1" {
				g.write("c1/rootfs/evil", "x")
			}
			_, err := g.Add(t.Context(), "c1", []Storage{pull(g, "c1", "busybox", map[string]string{})})
			if err == nil {
				t.Fatal("took a parked mount point")
			}
			if g.images.held != 0 {
				t.Error("pulled all the same, and keeps it")
			}
		})
	}
	t.Run("not by us", func(t *testing.T) {
		g := newGuest(t)
		p, _ := mount.At(g.root, g.path("c1/rootfs"))
		f, err := p.MakeDir(0o755)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		if err := p.Mount(mount.Request{Source: "x", FSType: "tmpfs"}); err != nil {
			t.Fatal(err)
		}
		defer p.Unmount()
		_, err = g.Add(t.Context(), "c1", []Storage{pull(g, "c1", "busybox", map[string]string{})})
		if !errdefs.IsFailedPrecondition(err) {
			t.Errorf("got %v", err)
		}
	})
}

func TestPauseBundle(t *testing.T) {
	g := newGuest(t)
	for _, key := range []string{"io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"} {
		v := g.add("sb", pull(g, "sb", "pause", map[string]string{key: "sandbox"}))[0].(Rootfs)
		process, ok := v.Pause()
		if !ok || strings.Join(process.Args, " ") != "/usr/bin/pause -x" {
			t.Errorf("process %+v, %v", process, ok)
		}
		process.Args[0] = "changed"
		if again, _ := v.Pause(); again.Args[0] != "/usr/bin/pause" {
			t.Error("the process is not the caller's own")
		}
		if _, ok := v.Image(); ok {
			t.Error("the pause bundle is no image")
		}
		if got, err := os.ReadFile(g.path("sb/rootfs/usr/bin/pause")); string(got) != "program" {
			t.Errorf("got %q, %v", got, err)
		}
		if g.images.held != 0 {
			t.Error("pulled something")
		}
		g.write("sb/rootfs/etc/new", "x") // a runtime makes mount points
		if err := g.Release(t.Context(), "sb"); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(g.path("sb/rootfs")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("left: %v", err)
		}
	}
}

func TestBadPauseBundle(t *testing.T) {
	g := newGuest(t)
	for _, config := range []string{"", "{", "{}", `{"process":{"args":[]}}`, `{"process":{"args":["pause"]}}`, `{"process":{"args":["/../../etc/passwd"]}}`, `{"process":{"args":["/missing"]}}`} {
		d := Deps{Root: g.root, PauseBundle: pauseBundle(t, config)}
		m := NewManager(d, Handlers(d))
		if _, err := m.Add(t.Context(), "sb", []Storage{pull(g, "sb", "pause", map[string]string{"io.kubernetes.cri.container-type": "sandbox"})}); err == nil {
			t.Errorf("accepted %q", config)
		}
	}
}

func FuzzIsSandbox(f *testing.F) {
	f.Add(`image_guest_pull={"metadata":{"io.kubernetes.cri.container-type":"sandbox"}}`)
	f.Add(`image_guest_pull={"metadata":null}`)
	f.Fuzz(func(t *testing.T, option string) {
		if sandbox, err := isSandbox([]string{option}); sandbox && (err != nil || !strings.Contains(option, "sandbox")) && !strings.Contains(option, `\u`) {
			t.Errorf("sandbox by %q, %v", option, err)
		}
	})
}

func FuzzProgramOf(f *testing.F) {
	f.Add([]byte(`{"process":{"args":["/pause"]}}`))
	f.Fuzz(func(t *testing.T, config []byte) {
		if p, err := programOf(config); err == nil && !filepath.IsLocal(p) {
			t.Errorf("program %q", p)
		}
	})
}
