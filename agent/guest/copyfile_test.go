package guest

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// copyRoot is a shared directory with something beside it that must not change.
func copyRoot(t testing.TB) (*Copier, string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "outside"), []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	return &Copier{Root: filepath.Join(dir, "shared")}, dir
}

func regular(path string, data string) CopyRequest {
	return CopyRequest{
		Path: path, Size: int64(len(data)), Data: []byte(data), Mode: unix.S_IFREG | 0o644,
		DirMode: 1<<31 | 0o750, // as Go's os.FileMode writes a directory
		UID:     int32(os.Getuid()), GID: int32(os.Getgid()),
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestCopyFile(t *testing.T) {
	c, _ := copyRoot(t)
	path := filepath.Join(c.Root, "a", "b", "hosts")
	r := regular(path, "127.0.0.1 localhost")
	r.Mode = unix.S_IFREG | 0o4640
	if err := c.Copy(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if got := content(t, path); got != "127.0.0.1 localhost" {
		t.Errorf("content %q", got)
	}
	st, _ := os.Stat(path)
	if st.Mode() != 0o640|os.ModeSetuid {
		t.Errorf("mode %v", st.Mode())
	}
	if st, _ := os.Stat(filepath.Dir(path)); st.Mode().Perm() != 0o750 {
		t.Errorf("mode of the parent %v", st.Mode())
	}
	empty := regular(path, "")
	if err := c.Copy(t.Context(), empty); err != nil {
		t.Fatal(err)
	}
	if got := content(t, path); got != "" {
		t.Errorf("content %q after an empty file", got)
	}
}

func TestCopyFileOwner(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to change owners")
	}
	c, _ := copyRoot(t)
	path := filepath.Join(c.Root, "d", "f")
	r := regular(path, "x")
	r.UID, r.GID = 1000, 2000
	if err := c.Copy(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	link := CopyRequest{Path: filepath.Join(c.Root, "d", "l"), Mode: unix.S_IFLNK | 0o777, Data: []byte("f"), UID: 1000, GID: 2000}
	if err := c.Copy(t.Context(), link); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, filepath.Dir(path), link.Path} {
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil || st.Uid != 1000 || st.Gid != 2000 {
			t.Errorf("%s belongs to %d:%d, %v", p, st.Uid, st.Gid, err)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(c.Root, &st); err != nil || st.Uid != 0 {
		t.Errorf("the root belongs to %d, %v", st.Uid, err)
	}
}

// Two files that differ in their extension alone arrive at once.
func TestCopyPieces(t *testing.T) {
	c, _ := copyRoot(t)
	text := map[string]string{"a.txt": "one two three", "a.yaml": "four five six", "a": "seven eight n"}
	for _, off := range []int{0, 4, 8} {
		for name, s := range text {
			r := regular(filepath.Join(c.Root, name), s)
			r.Offset, r.Data = int64(off), []byte(s[off:min(off+4, len(s))])
			if off == 8 {
				r.Data = []byte(s[off:])
			}
			if _, err := os.Stat(r.Path); err == nil {
				t.Errorf("%s is there before it is complete", name)
			}
			for range 2 { // a repeated piece does no harm
				if off == 8 && fileExists(r.Path) {
					continue
				}
				if err := c.Copy(t.Context(), r); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for name, s := range text {
		if got := content(t, filepath.Join(c.Root, name)); got != s {
			t.Errorf("%s: got %q, want %q", name, got, s)
		}
	}
	if entries, _ := os.ReadDir(c.Root); len(entries) != 3 {
		t.Errorf("left behind: %v", entries)
	}
}

func fileExists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// A config map is a directory of links into a dated directory that is swapped.
func TestCopyConfigMap(t *testing.T) {
	c, _ := copyRoot(t)
	dir := func(p string) CopyRequest {
		return CopyRequest{Path: filepath.Join(c.Root, p), Mode: unix.S_IFDIR | 0o755}
	}
	link := func(p, target string) CopyRequest {
		return CopyRequest{Path: filepath.Join(c.Root, p), Mode: unix.S_IFLNK | 0o777, Data: []byte(target)}
	}
	for _, r := range []CopyRequest{
		dir("m"), dir("m/..1"), regular(filepath.Join(c.Root, "m/..1/k"), "v1"), link("m/..data", "..1"), link("m/k", "..data/k"),
		dir("m"), dir("m/..2"), regular(filepath.Join(c.Root, "m/..2/k"), "v2"), link("m/..data", "..2"),
	} {
		if err := c.Copy(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if got := content(t, filepath.Join(c.Root, "m/k")); got != "v2" {
		t.Errorf("got %q", got)
	}
}

// Whatever is in the way of another kind is replaced; a directory stays when a
// directory is asked for.
func TestCopyReplaces(t *testing.T) {
	kinds := map[string]CopyRequest{
		"file": regular("", "x"),
		"dir":  {Mode: unix.S_IFDIR | 0o755},
		"link": {Mode: unix.S_IFLNK, Data: []byte("/etc/passwd")},
	}
	for first, a := range kinds {
		for second, b := range kinds {
			t.Run(first+" then "+second, func(t *testing.T) {
				c, _ := copyRoot(t)
				a, b := a, b
				a.Path = filepath.Join(c.Root, "x")
				b.Path = a.Path
				if err := c.Copy(t.Context(), a); err != nil {
					t.Fatal(err)
				}
				if first == "dir" {
					if err := c.Copy(t.Context(), regular(filepath.Join(c.Root, "x", "inside"), "y")); err != nil {
						t.Fatal(err)
					}
				}
				if err := c.Copy(t.Context(), b); err != nil {
					t.Fatal(err)
				}
				st, err := os.Lstat(a.Path)
				if err != nil {
					t.Fatal(err)
				}
				want := map[string]fs.FileMode{"file": 0, "dir": fs.ModeDir, "link": fs.ModeSymlink}[second]
				if st.Mode().Type() != want {
					t.Errorf("type %v", st.Mode())
				}
				if inside := fileExists(filepath.Join(a.Path, "inside")); inside != (first == "dir" && second == "dir") {
					t.Errorf("inside: %v", inside)
				}
			})
		}
	}
}

func TestCopyRefuses(t *testing.T) {
	c, dir := copyRoot(t)
	change := func(f func(*CopyRequest)) CopyRequest {
		r := regular(filepath.Join(c.Root, "f"), "data")
		f(&r)
		return r
	}
	for name, r := range map[string]CopyRequest{
		"outside":         change(func(r *CopyRequest) { r.Path = filepath.Join(dir, "outside") }),
		"dots":            change(func(r *CopyRequest) { r.Path = c.Root + "/../outside" }),
		"root itself":     change(func(r *CopyRequest) { r.Path = c.Root }),
		"sibling prefix":  change(func(r *CopyRequest) { r.Path = c.Root + "2/f" }),
		"relative":        change(func(r *CopyRequest) { r.Path = "f" }),
		"zero byte":       change(func(r *CopyRequest) { r.Path += "\x00" }),
		"reserved":        change(func(r *CopyRequest) { r.Path = filepath.Join(c.Root, partPrefix+"0") }),
		"uid":             change(func(r *CopyRequest) { r.UID = -1 }),
		"socket":          change(func(r *CopyRequest) { r.Mode = unix.S_IFSOCK | 0o644 }),
		"no type":         change(func(r *CopyRequest) { r.Mode = 0o644 }),
		"size":            change(func(r *CopyRequest) { r.Size = -1 }),
		"offset":          change(func(r *CopyRequest) { r.Offset = -1 }),
		"beyond":          change(func(r *CopyRequest) { r.Size = 3 }),
		"offset overflow": change(func(r *CopyRequest) { r.Offset = 1 << 62; r.Size = 1<<63 - 1; r.Data = nil }),
		"empty link":      change(func(r *CopyRequest) { r.Mode, r.Data = unix.S_IFLNK, nil }),
		"long link":       change(func(r *CopyRequest) { r.Mode, r.Data = unix.S_IFLNK, []byte(strings.Repeat("x", unix.PathMax)) }),
	} {
		err := c.Copy(t.Context(), r)
		if !errdefs.IsInvalidArgument(err) && !errdefs.IsFailedPrecondition(err) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	middle := change(func(r *CopyRequest) { r.Size, r.Offset = 8, 4 })
	if err := c.Copy(t.Context(), middle); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("a middle without a start: got %v", err)
	}
	if content(t, filepath.Join(dir, "outside")) != "old" {
		t.Error("the file outside changed")
	}
}

func TestCopyFollowsNoLink(t *testing.T) {
	c, dir := copyRoot(t)
	if err := c.Copy(t.Context(), CopyRequest{Path: filepath.Join(c.Root, "up"), Mode: unix.S_IFLNK, Data: []byte("..")}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"up/outside", "up/new", "up/d/new"} {
		if err := c.Copy(t.Context(), regular(filepath.Join(c.Root, name), "new")); err == nil {
			t.Errorf("%s was written", name)
		}
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 2 || content(t, filepath.Join(dir, "outside")) != "old" {
		t.Errorf("outside the directory: %v", entries)
	}
}

func FuzzCopy(f *testing.F) {
	f.Add("a/b", uint32(unix.S_IFREG|0o644), int64(0), []byte("data"))
	f.Add("../outside", uint32(unix.S_IFREG), int64(0), []byte("data"))
	f.Add("up/../../outside", uint32(unix.S_IFDIR|0o7777), int64(0), []byte{})
	f.Add("up/outside", uint32(unix.S_IFLNK), int64(3), []byte("/"))
	f.Add("", uint32(0), int64(-1), []byte{0})
	f.Fuzz(func(t *testing.T, path string, mode uint32, offset int64, data []byte) {
		c, dir := copyRoot(t)
		if err := os.MkdirAll(c.Root, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("..", filepath.Join(c.Root, "up")); err != nil {
			t.Fatal(err)
		}
		r := CopyRequest{Path: c.Root + "/" + path, Size: offset + int64(len(data)), Offset: offset, Mode: mode, Data: data}
		_ = c.Copy(t.Context(), r)
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 2 || content(t, filepath.Join(dir, "outside")) != "old" {
			t.Errorf("path %q changed what is outside: %v, %v", path, entries, err)
		}
	})
}
