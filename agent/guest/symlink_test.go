package guest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func link(path, target string) CopyRequest {
	r := regular(path, target)
	r.Mode = unix.S_IFLNK | 0o777
	return r
}

// TestConfinedSymlinks tries what a host can point a symlink at. What kubelet
// makes in a volume must work.
func TestConfinedSymlinks(t *testing.T) {
	c, dir := copyRoot(t)
	c.Confined = true
	for _, tc := range []struct {
		name, path, target string
		ok                 bool
	}{
		{"kubelet's data", "vol/..data", "..2024_01_01", true},
		{"kubelet's file", "vol/key", "..data/key", true},
		{"up and down", "vol/a/link", "../b/file", true},
		{"up to the root", "vol/a/link", "../..", true},
		{"itself", "vol/link", ".", true},
		{"absolute", "vol/link", "/etc/shadow", false},
		{"out of the root", "vol/link", "../../etc", false},
		{"out from below", "vol/a/link", "../../../outside", false},
		{"down and up", "vol/link", "a/../../..", false},
		{"through another link", "vol/link", "up/..", false},
		{"where containers mount from", "link", "vol", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(c.Root, tc.path)
			err := c.Copy(t.Context(), link(path, tc.target))
			got, _ := os.Readlink(path)
			if tc.ok && (err != nil || got != tc.target) {
				t.Errorf("points to %q, %v", got, err)
			}
			if !tc.ok && (!errdefs.IsPermissionDenied(err) || got != "") {
				t.Errorf("points to %q, %v", got, err)
			}
			_ = os.Remove(path)
		})
	}
	c.Confined = false
	if err := c.Copy(t.Context(), link(filepath.Join(c.Root, "vol/link"), "/etc/shadow")); err != nil {
		t.Errorf("where the host is trusted: %v", err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "outside")); err != nil || string(b) != "old" {
		t.Errorf("outside reads %q, %v", b, err)
	}
}

// TestConfinedSymlinksInPairs takes all pairs of short symlinks that may meet.
func TestConfinedSymlinksInPairs(t *testing.T) {
	c, _ := copyRoot(t)
	c.Confined = true
	var all []CopyRequest
	for _, path := range []string{"v/a", "v/b", "v/c/a"} {
		for _, target := range []string{"a", "b", "..", "../a", "a/..", "../..", "c/a/..", "../c/../.."} {
			all = append(all, link(filepath.Join(c.Root, path), target))
		}
	}
	made := 0
	for _, one := range all {
		for _, other := range all {
			if err := os.RemoveAll(c.Root); err != nil {
				t.Fatal(err)
			}
			if c.Copy(t.Context(), one) != nil || c.Copy(t.Context(), other) != nil {
				continue
			}
			made++
			for _, r := range []CopyRequest{one, other} {
				real, err := filepath.EvalSymlinks(r.Path)
				if err == nil && real != c.Root && !strings.HasPrefix(real, c.Root+"/") {
					t.Errorf("%s → %s and %s → %s: the way leads to %s", one.Path, one.Data, other.Path, other.Data, real)
				}
			}
		}
	}
	if made < 100 {
		t.Errorf("only %d pairs were made", made)
	}
}

// FuzzConfinedSymlinks makes two symlinks that were let through and sees that
// following them does not leave the root.
func FuzzConfinedSymlinks(f *testing.F) {
	f.Add("v/a/x", "..", "v/y", "a/x/..")
	f.Add("v/x", "a/..", "v/a/y", "../x")
	f.Fuzz(func(t *testing.T, path1, target1, path2, target2 string) {
		c, dir := copyRoot(t)
		c.Confined = true
		for _, r := range []CopyRequest{link(c.Root+"/"+path1, target1), link(c.Root+"/"+path2, target2)} {
			_ = c.Copy(t.Context(), r)
		}
		for _, p := range []string{path1, path2} {
			real, err := filepath.EvalSymlinks(filepath.Join(c.Root, p))
			if err == nil && real != c.Root && !strings.HasPrefix(real, c.Root+"/") {
				t.Errorf("%q → %q, %q → %q: %s is %s", path1, target1, path2, target2, p, strings.TrimPrefix(real, dir))
			}
		}
	})
}
