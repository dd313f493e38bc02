package imagepull_test

import (
	"archive/tar"
	"fmt"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	. "github.com/coffer-cc/coffer/imagepull/imagepulltest"
)

// owned is a directory of somebody.
func owned(name string, mode int64, uid int) Entry {
	e := Dir(name, mode)
	e.Uid = uid
	return e
}

// A directory that a layer uses without describing it looks as the layers below
// say, unless something between hides them.
func TestImpliedDirectories(t *testing.T) {
	pipe := Entry{Header: tar.Header{Name: "d", Typeflag: tar.TypeFifo, Mode: 0o600}}
	for _, c := range []struct {
		name   string
		layers [][]Entry // bottom first
		want   string    // mode and owner of d
	}{
		{"alone", [][]Entry{{File("d/x", "")}}, "755 0"},
		{"described below", [][]Entry{{owned("d", 0o2770, 7)}, {File("d/x", "")}}, "2770 7"},
		{"described two below", [][]Entry{{owned("d", 0o700, 7)}, {File("d/x", "")}, {File("d/y", "")}}, "700 7"},
		{"described by the nearest", [][]Entry{{owned("d", 0o700, 7)}, {owned("d", 0o711, 8)}, {File("d/y", "")}}, "711 8"},
		{"described above", [][]Entry{{owned("d", 0o700, 7)}, {File("d/x", "")}, {owned("d", 0o711, 8)}}, "711 8"},
		{"described in the same", [][]Entry{{owned("d", 0o700, 7)}, {File("d/x", ""), owned("d", 0o711, 8)}}, "711 8"},
		{"opaque where it is used", [][]Entry{{owned("d", 0o700, 7)}, {File("d/.wh..wh..opq", ""), File("d/x", "")}}, "755 0"},
		{"opaque between", [][]Entry{{owned("d", 0o700, 7)}, {File("d/.wh..wh..opq", ""), File("d/x", "")}, {File("d/y", "")}}, "755 0"},
		{"deleted between", [][]Entry{{owned("d", 0o700, 7)}, {File(".wh.d", "")}, {File("d/y", "")}}, "755 0"},
		{"file between", [][]Entry{{owned("d", 0o700, 7)}, {File("d", "")}, {File("d/y", "")}}, "755 0"},
		{"pipe between", [][]Entry{{owned("d", 0o700, 7)}, {pipe}, {File("d/y", "")}}, "755 0"},
		{"symlink between", [][]Entry{{owned("d", 0o700, 7)}, {Symlink("d", "/etc")}, {File("d/y", "")}}, "755 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := NewRegistry(t)
			var layers []Layer
			for _, entries := range c.layers {
				layers = append(layers, NewLayer(t, Gzip, append([]Entry{owned("./", 0o751, 9)}, entries...)...))
			}
			r.Push(t, "app:1", layers...)
			img, err := newPuller(t, r, nil).Pull(t.Context(), r.Ref("app:1"), "c1")
			if err != nil {
				t.Fatal(err)
			}
			for path, want := range map[string]string{"d": c.want, ".": "751 9"} {
				var st unix.Stat_t
				if err := unix.Lstat(filepath.Join(img.Rootfs, path), &st); err != nil {
					t.Fatal(err)
				}
				if got := fmt.Sprintf("%o %d", st.Mode&0o7777, st.Uid); got != want {
					t.Errorf("%s is %s, want %s", path, got, want)
				}
			}
		})
	}
}
