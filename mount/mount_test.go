package mount

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// world is a root directory of a test, which checks at the end that the test
// left no mount below it and no descriptor open.
func world(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	root := t.TempDir()
	fds := openFDs(t)
	t.Cleanup(func() {
		left, err := Table(root)
		if err != nil || len(left) != 0 {
			t.Errorf("mounts left: %v, %v", left, err)
		}
		for i := len(left) - 1; i >= 0; i-- {
			unix.Unmount(left[i].Target, unix.MNT_DETACH)
		}
		if n := openFDs(t); n != fds {
			t.Errorf("%d descriptors open, %d before", n, fds)
		}
	})
	return root
}

func openFDs(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

func place(t *testing.T, root, rel string) Place {
	t.Helper()
	p, err := At(root, filepath.Join(root, rel))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// madeDir creates the place as a directory.
func madeDir(t *testing.T, root, rel string) Place {
	t.Helper()
	p := place(t, root, rel)
	f, err := p.MakeDir(0o755)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	return p
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestErrorNamesEverything(t *testing.T) {
	root := world(t)
	p := madeDir(t, root, "here")
	o, err := ParseOptions([]string{"ro", "nodev", "size=banana"})
	if err != nil {
		t.Fatal(err)
	}
	err = p.Mount(Request{Source: "src", FSType: "tmpfs", Options: o})
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, unix.EINVAL) {
		t.Fatalf("got %v", err)
	}
	want := `mount "src" on "` + p.String() + `" type "tmpfs" flags ro,nodev data "size=banana": invalid argument`
	if err.Error() != want {
		t.Errorf("got  %s\nwant %s", err, want)
	}
}

func TestParseOptions(t *testing.T) {
	for _, tt := range []struct {
		name  string
		words []string
		want  Options
		bad   bool
	}{
		{name: "nothing"},
		{name: "flags and data", words: []string{"noexec", "nosuid", "nodev", "mode=1777", "size=67108864"},
			want: Options{Flags: unix.MS_NOEXEC | unix.MS_NOSUID | unix.MS_NODEV, Data: "mode=1777,size=67108864"}},
		{name: "later words win", words: []string{"ro", "rw", "noatime", "relatime"}, want: Options{Flags: unix.MS_RELATIME}},
		{name: "one entry, several words", words: []string{"pagesize=2097152,size=4194304,ro"},
			want: Options{Flags: unix.MS_RDONLY, Data: "pagesize=2097152,size=4194304"}},
		{name: "propagation apart", words: []string{"rbind", "rprivate", "ro"},
			want: Options{Flags: unix.MS_BIND | unix.MS_REC | unix.MS_RDONLY, Propagation: unix.MS_PRIVATE | unix.MS_REC}},
		{name: "notes are dropped", words: []string{"fsgid=3000", "X-kata.multi-layer=true", "io.katacontainers.fs-opt.overlay-rw", "remount", "size=320M"},
			want: Options{Flags: unix.MS_REMOUNT, Data: "size=320M"}},
		{name: "defaults and fstab words", words: []string{"defaults", "_netdev", "nofail"}},
		{name: "loop", words: []string{"loop"}, bad: true},
		{name: "loop with a device", words: []string{"ro,loop=/dev/loop0"}, bad: true},
		{name: "zero byte", words: []string{"a\x00b"}, bad: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseOptions(tt.words)
			if tt.bad {
				if !errdefs.IsInvalidArgument(err) {
					t.Fatalf("got %v, %v", got, err)
				}
				return
			}
			if err != nil || got != tt.want {
				t.Errorf("got %+v, %v, want %+v", got, err, tt.want)
			}
		})
	}
}

func TestTooMuchData(t *testing.T) {
	root := world(t)
	p := madeDir(t, root, "here")
	err := p.Mount(Request{Source: "tmpfs", FSType: "tmpfs", Options: Options{Data: "size=1m" + strings.Repeat(",mode=755", 500)}})
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "exceed 4095") {
		t.Errorf("got %v", err)
	}
}

func TestAt(t *testing.T) {
	const root = "/run/kata-containers"
	for _, tt := range []struct{ name, path, rel string }{
		{"plain", root + "/a/b", "a/b"},
		{"slash at the end", root + "/shared/containers/", "shared/containers"},
		{"the root", root, ""},
		{"the root with a slash", root + "/", ""},
		{"beside", root + "-evil/a", ""},
		{"outside", "/etc", ""},
		{"relative", "run/kata-containers/a", ""},
		{"empty", "", ""},
		{"dot dot out", root + "/../../etc", ""},
		{"dot dot inside", root + "/a/../b", ""},
		{"dot", root + "/./a", ""},
		{"two slashes", root + "//a", ""},
		{"two slashes at the end", root + "/a//", ""},
		{"zero byte", root + "/a\x00b", ""},
		{"too long", root + strings.Repeat("/a", 3000), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := At(root, tt.path)
			if tt.rel == "" {
				if !errdefs.IsInvalidArgument(err) {
					t.Fatalf("got %v, %v", p, err)
				}
				return
			}
			if err != nil || p.Rel() != tt.rel {
				t.Errorf("got %q, %v, want %q", p.Rel(), err, tt.rel)
			}
		})
	}
}

func TestPlaceFollowsNoSymlink(t *testing.T) {
	root := world(t)
	outside := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, "real/a/b/f"), "x")
	if err := os.Symlink("real", filepath.Join(root, "inside")); err != nil {
		t.Fatal(err)
	}
	for _, rel := range []string{"link", "link/a", "link/a/b", "inside", "inside/a", "inside/a/b", "inside/new"} {
		p := place(t, root, rel)
		for name, do := range map[string]func() error{
			"open": func() error { _, err := p.Open(); return err },
			"dir":  func() error { _, err := p.MakeDir(0o755); return err },
			"file": func() error { _, err := p.MakeFile(); return err },
			"mount": func() error {
				return p.Mount(Request{Source: "tmpfs", FSType: "tmpfs"})
			},
		} {
			if err := do(); err == nil {
				t.Errorf("%s %s went through a symlink", name, rel)
			}
		}
	}
	if names, _ := os.ReadDir(outside); len(names) != 0 {
		t.Errorf("created outside: %v", names)
	}
	if exists(filepath.Join(root, "real/new")) {
		t.Error("created through a symlink inside the root")
	}
	if _, err := place(t, root, "link/a").Open(); !errdefs.IsPermissionDenied(err) {
		t.Errorf("got %v", err)
	}
}

func TestMountUnmountRemove(t *testing.T) {
	root := world(t)
	p := madeDir(t, root, "a/b/c")
	if on, err := p.Mounted(); err != nil || on {
		t.Fatalf("before: %v, %v", on, err)
	}
	if err := p.Mount(Request{Source: "tmpfs", FSType: "tmpfs", Options: Options{Data: "size=1m"}}); err != nil {
		t.Fatal(err)
	}
	if on, err := p.Mounted(); err != nil || !on {
		t.Errorf("after: %v, %v", on, err)
	}
	if err := p.Remove(); !errors.Is(err, unix.EBUSY) {
		t.Errorf("removed a mount point: %v", err)
	}
	for range 2 { // making it again is fine while it is mounted
		madeDir(t, root, "a/b/c")
	}
	if err := p.Unmount(); err != nil {
		t.Fatal(err)
	}
	if err := p.Remove(); err != nil {
		t.Fatal(err)
	}
	if err := p.Remove(); err != nil {
		t.Errorf("again: %v", err)
	}
	if on, err := p.Mounted(); err != nil || on {
		t.Errorf("removed: %v, %v", on, err)
	}
}

func TestBindReadOnly(t *testing.T) {
	root := world(t)
	src := filepath.Join(root, "src")
	write(t, filepath.Join(src, "f"), "x")
	p := madeDir(t, root, "dst")
	o, _ := ParseOptions([]string{"rbind", "ro", "nosuid", "rprivate"})
	if err := p.Mount(Request{Source: src, FSType: "bind", Options: o}); err != nil {
		t.Fatal(err)
	}
	defer p.Unmount()
	if err := os.WriteFile(filepath.Join(p.String(), "f"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("write to a read-only bind: %v", err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(p.String(), &st); err != nil || st.Flags&unix.ST_NOSUID == 0 {
		t.Errorf("flags %#x, %v", st.Flags, err)
	}
}

func TestBindFile(t *testing.T) {
	root := world(t)
	src := filepath.Join(root, "src")
	write(t, src, "hello")
	p := place(t, root, "deep/file")
	for range 2 {
		f, err := p.MakeFile()
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	if err := p.Mount(Request{Source: src, Options: Options{Flags: unix.MS_BIND}}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(p.String()); string(got) != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := p.Unmount(); err != nil {
		t.Fatal(err)
	}
}

func TestOnRootFS(t *testing.T) {
	root := world(t)
	parked := madeDir(t, root, "cid")
	if err := parked.Mount(Request{Source: "tmpfs", FSType: "tmpfs"}); err != nil {
		t.Fatal(err)
	}
	defer parked.Unmount()
	p := place(t, root, "cid/rootfs").OnRootFS()
	if _, err := p.MakeDir(0o755); !errdefs.IsPermissionDenied(err) {
		t.Errorf("made a directory behind a mount: %v", err)
	}
	if _, err := p.Open(); !errdefs.IsPermissionDenied(err) {
		t.Errorf("opened behind a mount: %v", err)
	}
	madeDir(t, root, "cid/rootfs") // others may
}

// A directory that exists on a read-only file system needs no creating.
func TestMakeDirOnReadOnly(t *testing.T) {
	root := world(t)
	p := madeDir(t, root, "ro")
	if err := p.Mount(Request{Source: "tmpfs", FSType: "tmpfs"}); err != nil {
		t.Fatal(err)
	}
	defer p.Unmount()
	madeDir(t, root, "ro/a/b")
	if err := p.Mount(Request{Source: "tmpfs", FSType: "tmpfs", Options: Options{Flags: unix.MS_REMOUNT | unix.MS_RDONLY}}); err != nil {
		t.Fatal(err)
	}
	madeDir(t, root, "ro/a/b")
	if _, err := place(t, root, "ro/a/c").MakeDir(0o755); !errors.Is(err, unix.EROFS) {
		t.Errorf("got %v, want EROFS", err)
	}
}

func FuzzTable(f *testing.F) {
	live, _ := os.ReadFile("/proc/self/mountinfo")
	f.Add(string(live))
	f.Add(`36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`)
	f.Add("36 35 98:0 / / rw -\n")
	f.Fuzz(func(t *testing.T, text string) {
		parseTable(strings.NewReader(text), "/run")
	})
}

func FuzzParseOptions(f *testing.F) {
	f.Add("ro,nodev,size=1m")
	f.Add("loop")
	f.Add("lowerdir=/a:/b,upperdir=/c")
	f.Fuzz(func(t *testing.T, text string) {
		o, err := ParseOptions([]string{text})
		if err == nil && (strings.ContainsRune(o.Data, 0) || len(o.Data) > len(text)) {
			t.Errorf("data %q", o.Data)
		}
	})
}
