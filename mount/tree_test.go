package mount

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestRemoveStale(t *testing.T) {
	root := world(t)
	outside := t.TempDir()
	write(t, filepath.Join(outside, "precious"), "x")
	write(t, filepath.Join(root, "cid1/rootfs/a/b/c"), "x")
	write(t, filepath.Join(root, "cid1/config.json"), "x")
	write(t, filepath.Join(root, "foreign/file"), "x")
	write(t, filepath.Join(root, "cid2/gone"), "x")
	if err := os.Symlink(outside, filepath.Join(root, "cid2/link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(root, "cid3")); err != nil {
		t.Fatal(err)
	}
	vol := madeDir(t, root, "cid2/vol")
	if err := vol.Mount(Request{Source: "tmpfs", FSType: "tmpfs"}); err != nil {
		t.Fatal(err)
	}
	defer vol.Unmount()
	write(t, filepath.Join(vol.String(), "data"), "x")
	if err := os.MkdirAll(filepath.Join(root, "cid4"), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(root, "cid4/agent.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()

	stale := func(name string) bool { return strings.HasPrefix(name, "cid") }
	for range 2 { // the second time finds nothing more to do
		if err := RemoveStale(root, stale); err != nil {
			t.Fatal(err)
		}
	}
	for _, gone := range []string{"cid1", "cid2/gone", "cid2/link", "cid3"} {
		if exists(filepath.Join(root, gone)) {
			t.Errorf("%s is still there", gone)
		}
	}
	for _, kept := range []string{"foreign/file", "cid2/vol/data", "cid4/agent.sock"} {
		if !exists(filepath.Join(root, kept)) {
			t.Errorf("%s is gone", kept)
		}
	}
	if !exists(filepath.Join(outside, "precious")) {
		t.Error("deleted through a symlink")
	}
	if err := RemoveStale(filepath.Join(root, "none"), stale); err != nil {
		t.Errorf("missing root: %v", err)
	}
}

func TestWalk(t *testing.T) {
	root := world(t)
	outside := t.TempDir()
	write(t, filepath.Join(outside, "far"), "x")
	write(t, filepath.Join(root, "top/a/f"), "x")
	if err := os.Symlink(outside, filepath.Join(root, "top/link")); err != nil {
		t.Fatal(err)
	}
	inner := tmpfs(t, root, "top/mnt")
	write(t, filepath.Join(inner.String(), "hidden"), "x")
	dir, err := place(t, root, "top").Open()
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	var got []string
	err = Walk(dir, func(f *os.File, st *unix.Stat_t) error {
		got = append(got, filepath.Base(f.Name()))
		return nil
	})
	slices.Sort(got)
	if want := []string{"a", "f", "link", "top"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}
