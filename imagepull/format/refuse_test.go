package format_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/imagepull/format"
	. "github.com/coffer-cc/coffer/imagepull/imagepulltest"
)

func TestUnpackRefuses(t *testing.T) {
	long := strings.Repeat("x", 300)
	cases := []struct {
		name    string
		limits  format.Limits
		entries []Entry
		class   func(error) bool
	}{
		{"climbs", format.Limits{}, []Entry{File("../x", "")}, errdefs.IsInvalidArgument},
		{"climbs inside", format.Limits{}, []Entry{File("a/../../x", "")}, errdefs.IsInvalidArgument},
		{"long part", format.Limits{}, []Entry{File(long, "")}, errdefs.IsInvalidArgument},
		{"long name", format.Limits{}, []Entry{File(strings.Repeat("abcdefg/", 700)+"f", "")}, errdefs.IsInvalidArgument},
		{"deep name", format.Limits{}, []Entry{File(strings.Repeat("a/", 300)+"f", "")}, errdefs.IsInvalidArgument},
		{"file behind a symlink", format.Limits{}, []Entry{Symlink("d", "/etc"), File("d/passwd", "")}, errdefs.IsInvalidArgument},
		{"file behind two symlinks", format.Limits{}, []Entry{Symlink("a", "/"), Symlink("b", "a"), File("b/x/y", "")}, errdefs.IsInvalidArgument},
		{"file in a file", format.Limits{}, []Entry{File("d", ""), File("d/x", "")}, errdefs.IsInvalidArgument},
		{"link out", format.Limits{}, []Entry{Hardlink("h", "../../etc/passwd")}, errdefs.IsInvalidArgument},
		{"link to nothing", format.Limits{}, []Entry{Hardlink("h", "etc/passwd")}, errdefs.IsInvalidArgument},
		{"link to a later entry", format.Limits{}, []Entry{Hardlink("h", "f"), File("f", "")}, errdefs.IsInvalidArgument},
		{"link to a symlink", format.Limits{}, []Entry{Symlink("s", "/etc/passwd"), Hardlink("h", "s")}, errdefs.IsInvalidArgument},
		{"link through a symlink", format.Limits{}, []Entry{Symlink("s", "/etc"), Hardlink("h", "s/passwd")}, errdefs.IsInvalidArgument},
		{"link to a directory", format.Limits{}, []Entry{Dir("d", 0o755), Hardlink("h", "d")}, errdefs.IsInvalidArgument},
		{"link to itself", format.Limits{}, []Entry{File("f", ""), Hardlink("f", "f")}, errdefs.IsInvalidArgument},
		{"deletion in disguise", format.Limits{}, []Entry{entry(tar.Header{Name: "x", Typeflag: tar.TypeChar}, "")}, errdefs.IsInvalidArgument},
		{"deletes nothing", format.Limits{}, []Entry{File(".wh.", "")}, errdefs.IsInvalidArgument},
		{"deletes dot", format.Limits{}, []Entry{File("a/.wh..", "")}, errdefs.IsInvalidArgument},
		{"deletes dotdot", format.Limits{}, []Entry{File(".wh...", "")}, errdefs.IsInvalidArgument},
		{"below a deletion", format.Limits{}, []Entry{File(".wh.x/y", "")}, errdefs.IsInvalidArgument},
		{"deletes its own", format.Limits{}, []Entry{File("x", ""), File(".wh.x", "")}, errdefs.IsInvalidArgument},
		{"top is a file", format.Limits{}, []Entry{File("./.", "")}, errdefs.IsInvalidArgument},
		{"empty symlink", format.Limits{}, []Entry{entry(tar.Header{Name: "s", Typeflag: tar.TypeSymlink}, "")}, errdefs.IsInvalidArgument},
		{"device out of range", format.Limits{AllowDevs: true}, []Entry{entry(tar.Header{Name: "d", Typeflag: tar.TypeChar, Devmajor: 1 << 13}, "")}, errdefs.IsInvalidArgument},
		{"attributes", format.Limits{}, []Entry{entry(tar.Header{Name: "f", PAXRecords: map[string]string{"SCHILY.xattr.user.x": strings.Repeat("x", 70000)}}, "")}, errdefs.IsInvalidArgument},
		{"owner", format.Limits{}, []Entry{entry(tar.Header{Name: "f", Uid: 1<<32 - 1}, "")}, errdefs.IsInvalidArgument},
		{"negative owner", format.Limits{}, []Entry{entry(tar.Header{Name: "f", Gid: -1}, "")}, errdefs.IsInvalidArgument},
		{"device above a deletion", format.Limits{AllowDevs: true}, []Entry{entry(tar.Header{Name: "x", Typeflag: tar.TypeChar}, "")}, errdefs.IsInvalidArgument},
		{"file below a deletion", format.Limits{}, []Entry{File(".wh.d", ""), File("d/x", "")}, errdefs.IsInvalidArgument},
		{"link to a deletion", format.Limits{}, []Entry{File(".wh.d", ""), Hardlink("h", "d")}, errdefs.IsInvalidArgument},
		{"kind", format.Limits{}, []Entry{entry(tar.Header{Name: "x", Typeflag: 'M'}, "")}, errdefs.IsNotImplemented},
		{"depth", format.Limits{Depth: 2}, []Entry{File("a/b/c", "")}, errdefs.IsInvalidArgument},
		{"depth of a link's target", format.Limits{Depth: 2}, []Entry{Hardlink("h", "a/b/c")}, errdefs.IsInvalidArgument},
		{"long symlink", format.Limits{}, []Entry{Symlink("s", strings.Repeat("abcdefg/", 700))}, errdefs.IsInvalidArgument},
		{"entries", format.Limits{Entries: 2}, []Entry{File("a", ""), File("b", ""), File("c", "")}, errdefs.IsResourceExhausted},
		{"bytes of files", format.Limits{Bytes: 3000}, []Entry{File("a", strings.Repeat("x", 4000))}, errdefs.IsResourceExhausted},
		{"bytes of the archive", format.Limits{Bytes: 3000}, []Entry{File("a", ""), File("b", ""), File("c", ""), File("d", ""), File("e", "")}, errdefs.IsResourceExhausted},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir, _, err := unpack(t, NewLayer(t, Plain, c.entries...), c.limits)
			if !c.class(err) {
				t.Errorf("got %v", err)
			}
			canary(t, dir)
		})
	}
}

// Nothing is reached through a symlink, however deep behind it it lies.
func TestBehindSymlinks(t *testing.T) {
	outside := t.TempDir()
	secret := filepath.Join(outside, "sub", "secret")
	if err := os.MkdirAll(filepath.Dir(secret), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(secret, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{outside, "../" + filepath.Base(outside)} {
		for name, e := range map[string]Entry{
			"file": File("d/sub/secret", "changed"), "new file": File("d/sub/new", ""), "directory": Dir("d/sub/", 0o777),
			"link": Hardlink("stolen", "d/sub/secret"), "link there": Hardlink("d/sub/new", "own"), "symlink": Symlink("d/sub/new", "x"),
			"deletion": File("d/sub/.wh.secret", ""), "opaque": File("d/sub/.wh..wh..opq", ""),
			"pipe": entry(tar.Header{Name: "d/sub/new", Typeflag: tar.TypeFifo}, ""),
		} {
			_, _, err := unpack(t, NewLayer(t, Plain, File("own", ""), Symlink("d", target), e), format.Limits{})
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("%s behind %s: %v", name, target, err)
			}
		}
	}
	st, err := os.Stat(filepath.Dir(secret))
	left, _ := os.ReadDir(filepath.Dir(secret))
	if text, _ := os.ReadFile(secret); string(text) != "kept" || err != nil || st.Mode().Perm() != 0o755 || len(left) != 1 {
		t.Errorf("outside: %q, %v, %v, %v", text, left, st.Mode(), err)
	}
}

// header is an archive of one entry of any type and claimed size, with the body
// that it has.
func header(t *testing.T, name string, kind byte, size int64, body string) Layer {
	t.Helper()
	var b bytes.Buffer
	if err := tar.NewWriter(&b).WriteHeader(&tar.Header{Name: name, Size: size, Format: tar.FormatGNU}); err != nil {
		t.Fatal(err)
	}
	raw := b.Bytes()
	raw[156] = kind
	copy(raw[148:156], "        ") // the checksum counts itself as blanks
	sum := 0
	for _, c := range raw {
		sum += int(c)
	}
	copy(raw[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return LayerOf(t, Plain, append(raw, body...))
}

func TestBombInAHeader(t *testing.T) {
	long := strings.Repeat("x", 2<<20)
	for name, c := range map[string]struct {
		layer Layer
		class func(error) bool
	}{
		"size":          {header(t, "f", tar.TypeReg, 1<<62, ""), errdefs.IsResourceExhausted},
		"records":       {header(t, "f", 'x', 2<<20, long), errdefs.IsDataLoss},
		"global record": {header(t, "f", 'g', 2<<20, long), errdefs.IsDataLoss},
		"name":          {header(t, "f", 'L', 2<<20, long), errdefs.IsDataLoss},
		"link":          {header(t, "f", 'K', 2<<20, long), errdefs.IsDataLoss},
	} {
		if _, _, err := unpack(t, c.layer, format.Limits{}); !c.class(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBomb(t *testing.T) {
	archive := Tar(t, File("zeros", strings.Repeat("\x00", 100<<20)))
	l := LayerOf(t, Zstd, archive)
	if _, _, err := unpack(t, l, format.Limits{Ratio: 100}); !errdefs.IsResourceExhausted(err) {
		t.Errorf("got %v", err)
	}
}
