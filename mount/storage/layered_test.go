package storage

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/mount"
	"github.com/coffer-cc/coffer/mount/device"
)

// erofsDisk is a loop device with an erofs that holds the files.
func erofsDisk(t *testing.T, files map[string]string) string {
	t.Helper()
	dir, image := t.TempDir(), filepath.Join(t.TempDir(), "layer")
	for name, text := range files {
		put(t, filepath.Join(dir, name), text)
	}
	if out, err := exec.Command("mkfs.erofs", image, dir).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.erofs: %v, %s", err, out)
	}
	return loopDevice(t, image)
}

const mark = "X-kata.multi-layer=true"

func lower(node, point string, options ...string) Storage {
	return Storage{Driver: "blk", Source: node, FSType: "erofs", MountPoint: point,
		Options: append([]string{"ro", "X-kata.overlay-lower", mark}, options...)}
}

func TestLayers(t *testing.T) {
	top, bottom := erofsDisk(t, map[string]string{"both": "top", "top": "t"}), erofsDisk(t, map[string]string{"both": "bottom", "bottom": "b"})
	rw := ext4Disk(t)
	for _, tt := range []struct {
		name  string
		upper *Storage
	}{
		{"in memory", nil},
		{"on a disk", &Storage{Driver: "blk", Source: rw, FSType: "ext4", Options: []string{"rw", "X-kata.overlay-upper", mark, "X-kata.mkdir.path={{ mount 0 }}/made/here:mode=0755"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGuest(t)
			root := g.path("shared/containers/c1/rootfs")
			ss := []Storage{lower(top, root), lower(bottom, g.path("unused"))}
			if tt.upper != nil {
				tt.upper.MountPoint = root
				ss = append([]Storage{*tt.upper}, ss...)
			}
			ss = append(ss, Storage{Driver: "ephemeral", Source: "x", FSType: "tmpfs", MountPoint: g.path("sandbox/x")})
			vs := g.add("c1", ss...)
			if len(vs) != 2 || vs[0].Path() != root {
				t.Fatalf("volumes %v", vs)
			}
			for name, want := range map[string]string{"both": "top", "top": "t", "bottom": "b"} {
				if text, err := os.ReadFile(filepath.Join(root, name)); string(text) != want || err != nil {
					t.Errorf("%s: %q, %v", name, text, err)
				}
			}
			put(t, filepath.Join(root, "both"), "changed")
			if text, err := os.ReadFile(g.path("c1/multi-layer/lower-0/both")); string(text) != "top" || err != nil {
				t.Errorf("the layer holds %q, %v", text, err)
			}
			if _, err := os.Stat(g.path("c1/multi-layer/upper/made/here")); (err == nil) != (tt.upper != nil) {
				t.Errorf("directory to make: %v", err)
			}
			for _, layer := range []string{"lower-0", "lower-1"} {
				if f := g.flags(g.path("c1/multi-layer/" + layer)); !strings.Contains(f, "ro,nosuid,nodev") {
					t.Errorf("%s is mounted with %s", layer, f)
				}
			}
			// The same again joins; another layer at this place does not.
			g.add("c2", ss...)
			if _, err := g.Add(t.Context(), "c3", []Storage{lower(bottom, root)}); !errdefs.IsAlreadyExists(err) {
				t.Errorf("other layers: %v", err)
			}
			for _, owner := range []string{"c1", "c2"} {
				if !g.mounted("shared/containers/c1/rootfs") {
					t.Error("gone before its last owner")
				}
				if err := g.Release(t.Context(), owner); err != nil {
					t.Error(err)
				}
			}
			if _, err := os.Stat(g.path("c1/multi-layer")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("layers left: %v", err)
			}
		})
	}
}

func TestLayersRefused(t *testing.T) {
	good := erofsDisk(t, map[string]string{"f": "x"})
	bad := ext4Disk(t) // no erofs
	g := newGuest(t)
	root := g.path("c1/rootfs")
	verity := func(words ...string) []string {
		return append([]string{"X-kata.dmverity-enabled=true", "X-kata.dmverity.hashoffset=4096", "X-kata.dmverity.roothash=" + strings.Repeat("a", 64)}, words...)
	}
	invalid := errdefs.IsInvalidArgument
	for _, tt := range []struct {
		name  string
		ss    []Storage
		class func(error) bool
	}{
		{"no lower", []Storage{{Driver: "blk", Source: bad, FSType: "ext4", MountPoint: root, Options: []string{mark}}}, invalid},
		{"two uppers", []Storage{{Driver: "blk", Source: bad, FSType: "ext4", Options: []string{mark}}, {Driver: "blk", Source: bad, FSType: "ext4", Options: []string{mark}}}, invalid},
		{"upper that is no ext4", []Storage{{Driver: "blk", Source: bad, FSType: "erofs", Options: []string{mark, "X-kata.overlay-upper"}}}, invalid},
		{"lower that is no erofs", []Storage{with(lower(good, root), func(s *Storage) { s.FSType = "xfs" })}, invalid},
		{"another driver", []Storage{with(lower(good, root), func(s *Storage) { s.Driver = layeredDriver })}, invalid},
		{"unknown mark", []Storage{lower(good, root, "X-kata.trust-me=true")}, invalid},
		{"verity half asked for", []Storage{lower(good, root, "X-kata.dmverity.roothash=aa")}, invalid},
		{"verity without a hash", []Storage{lower(good, root, "X-kata.dmverity-enabled=true")}, invalid},
		{"verity with a weak hash", []Storage{lower(good, root, verity("X-kata.dmverity.algorithm=md5")...)}, invalid},
		{"verity of an upper", []Storage{lower(good, root), {Driver: "blk", Source: bad, FSType: "ext4", MountPoint: root, Options: verity(mark)}}, invalid},
		{"partition without a table", []Storage{lower(good, root, "X-kata.partition-number=1")}, invalid},
		{"partition 0", []Storage{lower(good, root, "X-kata.gpt-partitioned=true", "X-kata.partition-number=0")}, invalid},
		{"second device", []Storage{lower(good, root, "device="+bad)}, errdefs.IsPermissionDenied},
		{"directory that climbs", []Storage{lower(good, root, "X-kata.mkdir.path={{ mount 0 }}/../../x")}, invalid},
		{"directory in no mount", []Storage{lower(good, root, "X-kata.mkdir.path={{ mount 2 }}/x")}, invalid},
		{"group", []Storage{with(lower(good, root), func(s *Storage) { s.FSGroup = &FSGroup{} })}, invalid},
		{"outside", []Storage{lower(good, "/etc")}, invalid},
		{"second layer is broken", []Storage{lower(good, root), lower(bad, root)}, func(err error) bool { return err != nil }},
		{"second layer is absent", []Storage{lower(good, root), lower("1f/1f", root)}, errdefs.IsUnavailable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := g.Add(t.Context(), "c1", tt.ss); !tt.class(err) {
				t.Errorf("got %v", err)
			}
			if left, err := mount.Table(g.root); err != nil || len(left) > 0 {
				t.Errorf("mounts left: %v, %v", left, err)
			}
			if strings.Contains(g.tree(), "multi-layer") {
				t.Errorf("left behind: %s", g.tree())
			}
		})
	}
}

// TestLayersAreUncovered lets other storages try to change what is verified.
func TestLayersAreUncovered(t *testing.T) {
	g := newGuest(t)
	root := g.path("c1/rootfs")
	inside := func(at string) Storage {
		return Storage{Driver: "ephemeral", Source: "x", FSType: "tmpfs", MountPoint: g.path(at)}
	}
	layer := lower(erofsDisk(t, map[string]string{"etc/f": "x"}), root)
	for _, at := range []string{"c1/multi-layer", "c1/multi-layer/upper", "c2/multi-layer/lower-0/etc"} {
		if _, err := g.Add(t.Context(), "c2", []Storage{inside(at)}); !errdefs.IsPermissionDenied(err) {
			t.Errorf("%s before: %v", at, err)
		}
	}
	if _, err := g.Add(t.Context(), "c1", []Storage{inside("c1"), layer}); !errdefs.IsPermissionDenied(err) {
		t.Errorf("layers on another file system: %v", err)
	}
	g.add("c1", layer)
	if _, err := g.Add(t.Context(), "c1", []Storage{inside("c1/rootfs/etc")}); !errdefs.IsPermissionDenied(err) {
		t.Errorf("inside the root file system: %v", err)
	}
}

// TestConfidentialDisks asks for less protection than a confidential guest takes.
func TestConfidentialDisks(t *testing.T) {
	d := Deps{Root: t.TempDir(), Devices: &device.Finder{Timeout: time.Millisecond}, Confidential: true}
	m := NewManager(d, Handlers(d))
	root := filepath.Join(d.Root, "c1/rootfs")
	verified := lower("1f", root, "X-kata.dmverity-enabled=true", "X-kata.dmverity.hashoffset=4096", "X-kata.dmverity.roothash="+strings.Repeat("a", 64))
	upper := Storage{Driver: "blk", Source: "1e", FSType: "ext4", MountPoint: root, Options: []string{mark, markUpper}}
	scratch := func(options ...string) Storage {
		return Storage{Driver: "blk", Source: "1f", FSType: "ext4", MountPoint: filepath.Join(d.Root, "c1/scratch"), DriverOptions: options}
	}
	for _, tt := range []struct {
		name  string
		ss    []Storage
		class func(error) bool
	}{
		{"layer without verity", []Storage{verified, lower("1e", root)}, errdefs.IsPermissionDenied},
		{"upper layer of the host's", []Storage{verified, upper}, errdefs.IsPermissionDenied},
		{"scratch disk in clear", []Storage{scratch("create_filesystem")}, errdefs.IsPermissionDenied},
		{"shared directory", []Storage{{Driver: "virtio-fs", Source: sharedTag, FSType: "virtiofs", MountPoint: filepath.Join(d.Root, "shared/containers")}}, errdefs.IsPermissionDenied},
		{"verified layer", []Storage{verified}, errdefs.IsUnavailable}, // looked for
		{"encrypted scratch disk", []Storage{scratch("create_filesystem", "encryption_key=ephemeral")}, errdefs.IsUnavailable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := m.Add(t.Context(), "c1", tt.ss); !tt.class(err) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestLayerOrder sees partitions sorted by number, and others as they came.
func TestLayerOrder(t *testing.T) {
	part := func(n int) Storage {
		return lower(fmt.Sprint(n), "/x", "X-kata.gpt-partitioned=true", fmt.Sprintf("X-kata.partition-number=%d", n))
	}
	for _, tt := range []struct {
		in   []Storage
		want string
	}{
		{[]Storage{part(10), part(2), lower("last", "/x"), part(1)}, "1 2 10 last"},
		{[]Storage{lower("b", "/x"), lower("a", "/x")}, "b a"},
	} {
		l, err := parseLayers(tt.in)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, one := range l.lower {
			got = append(got, one.Source)
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("got %v, want %s", got, tt.want)
		}
	}
}

func FuzzLayer(f *testing.F) {
	f.Add("ro", "X-kata.overlay-lower", "X-kata.dmverity-enabled=true,X-kata.dmverity.roothash=00")
	f.Add(mark, "X-kata.gpt-partitioned=true", "X-kata.partition-number=3")
	f.Add(mark, "X-kata.mkdir.path={{ mount 1 }}/a:x", "noatime")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		s := Storage{Driver: "blk", Source: "02", FSType: "erofs", MountPoint: "/x", Options: []string{a, b, c}}
		l, err := parseLayer(s)
		if err != nil {
			return
		}
		asked := slices.ContainsFunc(mount.SplitOptions(s.Options), func(w string) bool { return strings.HasPrefix(w, "X-kata.dmverity") })
		if asked != (l.verity != nil) {
			t.Errorf("verity asked for: %v, and given: %v", asked, l.verity != nil)
		}
		for _, dir := range l.mkdir {
			if p, err := mkdirPlace(dir, "/up", "/low"); err == nil && !strings.HasPrefix(p.String(), "/up/") && !strings.HasPrefix(p.String(), "/low/") {
				t.Errorf("%q leads to %s", dir, p)
			}
		}
	})
}
