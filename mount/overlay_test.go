package mount

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// layers makes n lower directories, topmost first, each with its own file and
// one that all have.
func layers(t *testing.T, root string, n int) []string {
	t.Helper()
	var dirs []string
	for i := range n {
		dir := filepath.Join(root, fmt.Sprintf("layers/%03d-%s", i, strings.Repeat("x", 40)))
		write(t, filepath.Join(dir, fmt.Sprint("own", i)), "x")
		write(t, filepath.Join(dir, "common"), fmt.Sprint(i))
		dirs = append(dirs, dir)
	}
	return dirs
}

func tmpfs(t *testing.T, root, rel string) Place {
	t.Helper()
	p := madeDir(t, root, rel)
	if err := p.Mount(Request{Source: "tmpfs", FSType: "tmpfs"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func TestOverlay(t *testing.T) {
	root := world(t)
	ground := tmpfs(t, root, "ground").String()
	up := func(name string) (string, string) {
		for _, d := range []string{"upper", "work"} {
			if err := os.MkdirAll(filepath.Join(ground, name, d), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		return filepath.Join(ground, name, "upper"), filepath.Join(ground, name, "work")
	}
	for _, tt := range []struct {
		name   string
		layers int
		ro     bool
	}{
		{"one layer", 1, false},
		{"read-only", 2, true},
		{"more than a page of names", 150, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := Overlay{Lower: layers(t, filepath.Join(ground, tt.name), tt.layers)}
			if !tt.ro {
				o.Upper, o.Work = up(tt.name)
			}
			o.Options.Flags = unix.MS_NODEV
			o.Options.Data = "index=off"
			p := madeDir(t, root, tt.name)
			if err := p.MountOverlay(o); err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(filepath.Join(p.String(), "common")); string(got) != "0" {
				t.Errorf("top layer: got %q, %v", got, err)
			}
			if _, err := os.Stat(filepath.Join(p.String(), fmt.Sprint("own", tt.layers-1))); err != nil {
				t.Error(err)
			}
			err := os.WriteFile(filepath.Join(p.String(), "new"), nil, 0o600)
			if (err != nil) != tt.ro {
				t.Errorf("write: %v", err)
			}
			var st unix.Statfs_t
			if err := unix.Statfs(p.String(), &st); err != nil || st.Flags&unix.ST_NODEV == 0 {
				t.Errorf("flags %#x, %v", st.Flags, err)
			}
			if err := p.Unmount(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestOverlayStrangeNames(t *testing.T) {
	root := world(t)
	ground := tmpfs(t, root, "ground").String()
	long := filepath.Join(ground, strings.Repeat("d", 200), strings.Repeat("e", 200))
	o := Overlay{Lower: []string{filepath.Join(ground, "a:b,c"), filepath.Join(ground, `back\slash`), long}}
	for i, d := range o.Lower {
		write(t, filepath.Join(d, fmt.Sprint(i)), "x")
	}
	p := madeDir(t, root, "merged")
	for name, mount := range map[string]func() error{
		"by descriptor": func() error { return p.MountOverlay(o) },
		"by string": func() error {
			c := o
			release, err := c.aliases()
			if err != nil {
				return err
			}
			defer release()
			return c.classic(p.String(), func() (string, func(), error) { return p.String(), func() {}, nil })
		},
	} {
		if err := mount(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for i := range o.Lower {
			if _, err := os.Stat(filepath.Join(p.String(), fmt.Sprint(i))); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := p.Unmount(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOverlayRefuses(t *testing.T) {
	root := world(t)
	p := madeDir(t, root, "merged")
	for _, tt := range []struct {
		name string
		o    Overlay
		want string
	}{
		{"no layer", Overlay{}, "no lower directory"},
		{"upper without work", Overlay{Lower: []string{root}, Upper: root}, "go together"},
		{"too many", Overlay{Lower: make([]string, 501)}, "501 layers"},
		{"layer missing", Overlay{Lower: []string{root + "/none"}}, "none"},
		{"unknown option", Overlay{Lower: []string{root}, Options: Options{Data: "banana=1"}}, "banana"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := p.MountOverlay(tt.o)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q in it", err, tt.want)
			}
		})
	}
	long := Overlay{Lower: layers(t, root, 60)}
	err := long.classic("/x", nil)
	if !errdefs.IsInvalidArgument(err) {
		t.Errorf("got %v", err)
	}
}
