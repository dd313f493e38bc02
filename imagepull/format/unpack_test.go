package format_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/imagepull/format"
	. "github.com/coffer-cc/coffer/imagepull/imagepulltest"
)

func TestUnpack(t *testing.T) {
	cases := []struct {
		name    string
		entries []Entry
		want    []string
		implied []string
		dropped int
	}{
		{name: "kinds", entries: []Entry{
			Dir("./", 0o755), Dir("d", 0o1777), entry(tar.Header{Name: "d/f", Mode: 0o4755, Uid: 1000, Gid: 4294967294}, "body"),
			Symlink("l", "../../../etc"), Hardlink("h", "/d/f"),
			entry(tar.Header{Name: "p", Typeflag: tar.TypeFifo, Mode: 0o640}, ""),
		}, want: []string{
			"d 41777 0:0", `d/f 100644 0:0 "body" links 2`, `h 100644 0:0 "body" links 2`, "l 120777 0:0 -> ../../../etc", "p 10640 0:0",
		}},
		{name: "owner and setuid", entries: []Entry{entry(tar.Header{Name: "f", Mode: 0o6755, Uid: 1000, Gid: 4294967294}, "")},
			want: []string{`f 106755 1000:4294967294 ""`}, implied: []string{"."}},
		{name: "implied directories", entries: []Entry{File("a/b/c", ""), Dir("a", 0o700)},
			want: []string{"a 40700 0:0", "a/b 40755 0:0", `a/b/c 100644 0:0 ""`}, implied: []string{".", "a/b"}},
		{name: "absolute and dotted names", entries: []Entry{File("/etc/./x", "1"), File("./etc//y", "2")},
			want: []string{"etc 40755 0:0", `etc/x 100644 0:0 "1"`, `etc/y 100644 0:0 "2"`}, implied: []string{".", "etc"}},
		{name: "deletions", entries: []Entry{File("d/.wh.gone", ""), Dir(".wh.dir", 0o755), File("o/.wh..wh..opq", ""), File(".wh..wh.plnk/1", ""), File(".wh..wh.aufs", "")},
			want: []string{"d 40755 0:0", "d/gone 20000 0:0 dev 0:0", "dir 20000 0:0 dev 0:0", "o 40755 0:0 opaque y"}, implied: []string{".", "d", "o"}},
		{name: "directory in place of a deletion", entries: []Entry{File(".wh.d", ""), Dir("d", 0o755)},
			want: []string{"d 40755 0:0 opaque y"}, implied: []string{"."}},
		{name: "replaced", entries: []Entry{File("a", "1"), File("a", "2"), Dir("b", 0o755), File("b/x", ""), File("b", "file"), File("c", ""), Dir("c", 0o700), Dir("c", 0o755)},
			want: []string{`a 100644 0:0 "2"`, `b 100644 0:0 "file"`, "c 40755 0:0"}, implied: []string{"."}},
		{name: "symlink replaced by directory", entries: []Entry{Symlink("d", "/tmp"), Dir("d", 0o755), File("d/x", "1")},
			want: []string{"d 40755 0:0", `d/x 100644 0:0 "1"`}, implied: []string{"."}},
		{name: "writing through a name replaces a link", entries: []Entry{Symlink("f", "/etc/passwd"), File("f", "mine")},
			want: []string{`f 100644 0:0 "mine"`}, implied: []string{"."}},
		{name: "devices are left out", entries: []Entry{entry(tar.Header{Name: "mem", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 1}, "")},
			implied: []string{"."}, dropped: 1},
		{name: "global header", entries: []Entry{File("a", "")}, want: []string{`a 100644 0:0 ""`}, implied: []string{"."}},
		{name: "unreadable directory", entries: []Entry{Dir("d", 0), File("d/x", "1")},
			want: []string{"d 40000 0:0", `d/x 100644 0:0 "1"`}, implied: []string{"."}},
	}
	for _, c := range cases {
		for _, compression := range []string{Plain, Gzip, Zstd} {
			t.Run(c.name+" "+compression, func(t *testing.T) {
				dir, res, err := unpack(t, NewLayer(t, compression, c.entries...), format.Limits{})
				if err != nil {
					t.Fatal(err)
				}
				if got := describe(t, dir); !slices.Equal(got, c.want) {
					t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
				}
				if !slices.Equal(res.Implied, c.implied) || res.Dropped != c.dropped {
					t.Errorf("implied %q, dropped %d", res.Implied, res.Dropped)
				}
			})
		}
	}
}

func TestHolesTimesAndAttributes(t *testing.T) {
	stamp := time.Unix(1234567890, 123456789)
	l := NewLayer(t, Plain, Dir("d", 0o755),
		entry(tar.Header{Name: "d/f", Mode: 0o755, ModTime: stamp, PAXRecords: map[string]string{
			"SCHILY.xattr.security.capability":    "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
			"SCHILY.xattr.user.note":              "kept",
			"SCHILY.xattr.trusted.overlay.opaque": "y",
			"SCHILY.xattr.security.selinux":       "label",
		}, Uid: 7}, "x"+strings.Repeat("\x00", 1<<20)+strings.Repeat("y", 10)+strings.Repeat("\x00", 200<<10)),
		entry(tar.Header{Name: "d2/", Mode: 0o755, Typeflag: tar.TypeDir, ModTime: stamp}, ""), File("d2/inside", ""))
	dir, _, err := unpack(t, l, format.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "d/f"), &st); err != nil {
		t.Fatal(err)
	}
	if st.Size != 1+1<<20+10+200<<10 || st.Blocks*512 > 400<<10 {
		t.Errorf("size %d in %d blocks", st.Size, st.Blocks)
	}
	if st.Mtim.Sec != stamp.Unix() || st.Mtim.Nsec != 123456789 {
		t.Errorf("time %v", st.Mtim)
	}
	if err := unix.Stat(filepath.Join(dir, "d2"), &st); err != nil || st.Mtim.Sec != stamp.Unix() {
		t.Errorf("time of directory %v %v", st.Mtim, err)
	}
	buf := make([]byte, 100)
	for name, want := range map[string]int{"security.capability": 20, "user.note": 4, "trusted.overlay.opaque": -1, "security.selinux": -1} {
		n, err := unix.Lgetxattr(filepath.Join(dir, "d/f"), name, buf)
		if err != nil {
			n = -1
		}
		if n != want {
			t.Errorf("%s has %d bytes, want %d", name, n, want)
		}
	}
}

func TestManyDirectories(t *testing.T) {
	var entries []Entry
	for i := range 600 {
		entries = append(entries, File(fmt.Sprintf("d%d/f", i), ""))
	}
	for i := range 600 {
		entries = append(entries, File(fmt.Sprintf("d%d/g", i), ""))
	}
	before := openFiles(t)
	dir, res, err := unpack(t, NewLayer(t, Plain, entries...), format.Limits{})
	if err != nil || len(describe(t, dir)) != 1800 || res.Entries != 1200 {
		t.Errorf("%d entries, %v", res.Entries, err)
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// Device nodes are for guests whose configuration asks for them.
func TestDevices(t *testing.T) {
	dir, res, err := unpack(t, NewLayer(t, Plain,
		entry(tar.Header{Name: "c", Typeflag: tar.TypeChar, Mode: 0o620, Gid: 5, Devmajor: 4, Devminor: 70000}, ""),
		entry(tar.Header{Name: "b", Typeflag: tar.TypeBlock, Mode: 0o600, Devmajor: 259, Devminor: 1}, "")), format.Limits{AllowDevs: true})
	want := []string{"b 60600 0:0 dev 259:1", "c 20620 0:5 dev 4:70000"}
	if got := describe(t, dir); err != nil || res.Dropped != 0 || !slices.Equal(got, want) {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestSparse reads what GNU tar writes for files with holes.
func TestSparse(t *testing.T) {
	src := t.TempDir()
	f, err := os.Create(filepath.Join(src, "holes"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, at := range []int64{0, 5 << 20, 9<<20 + 7} {
		if _, err := f.WriteAt([]byte("island"), at); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(20 << 20); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"gnu", "posix --sparse-version=0.0", "posix --sparse-version=0.1", "posix --sparse-version=1.0"} {
		cmd := exec.Command("tar", append(strings.Fields("-cSf - -C "+src+" --format="+kind), "holes")...)
		archive, err := cmd.Output()
		if err != nil || len(archive) > 1<<20 {
			t.Fatalf("tar --format=%s: %d bytes, %v", kind, len(archive), err)
		}
		dir, _, err := unpack(t, LayerOf(t, Plain, archive), format.Limits{})
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		got, _ := os.ReadFile(filepath.Join(dir, "holes"))
		var st unix.Stat_t
		unix.Stat(filepath.Join(dir, "holes"), &st)
		if !bytes.Equal(got, want) || st.Blocks*512 > 1<<20 {
			t.Errorf("%s: %d bytes in %d blocks", kind, len(got), st.Blocks)
		}
		if _, _, err := unpack(t, LayerOf(t, Plain, archive), format.Limits{Bytes: 10 << 20}); !errdefs.IsResourceExhausted(err) {
			t.Errorf("%s beyond the limit: %v", kind, err)
		}
	}
}
