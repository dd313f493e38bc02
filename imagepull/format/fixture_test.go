package format_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/imagepull/format"
	. "github.com/coffer-cc/coffer/imagepull/imagepulltest"
)

func unpack(t testing.TB, l Layer, limits format.Limits) (string, format.Result, error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("owners and deletions need root")
	}
	dir := t.TempDir()
	res, err := format.Unpackers(limits)[l.MediaType].Unpack(t.Context(), format.Layer{
		R: io.NopCloser(bytes.NewReader(l.Blob)), Dir: dir, DiffID: l.DiffID})
	return dir, res, err
}

// describe lists what is below dir, one line each.
func describe(t testing.TB, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		line := fmt.Sprintf("%s %o %d:%d", rel, st.Mode, st.Uid, st.Gid)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			target, _ := os.Readlink(p)
			line += " -> " + target
		case unix.S_IFREG:
			body, _ := os.ReadFile(p)
			line += fmt.Sprintf(" %.20q", body)
			if st.Nlink > 1 {
				line += fmt.Sprintf(" links %d", st.Nlink)
			}
		case unix.S_IFCHR, unix.S_IFBLK:
			line += fmt.Sprintf(" dev %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		case unix.S_IFDIR:
			b := make([]byte, 8)
			if n, err := unix.Lgetxattr(p, "trusted.overlay.opaque", b); err == nil {
				line += " opaque " + string(b[:n])
			}
		}
		out = append(out, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func entry(h tar.Header, body string) Entry { return Entry{Header: h, Body: body} }

// canary fails when something appeared beside the directory.
func canary(t testing.TB, dir string) {
	t.Helper()
	left, err := os.ReadDir(filepath.Dir(dir))
	if err != nil || len(left) > 1 && !strings.HasPrefix(left[0].Name(), "00") {
		t.Errorf("beside the directory: %v %v", left, err)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}
