package image

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// A tree is the guest's root while it is put together. Paths are absolute in
// the guest; directories on the way are added with mode 0755.
type tree struct {
	entries map[string]entry
}

func newTree() *tree { return &tree{entries: map[string]entry{}} }

func (t *tree) add(p string, e entry) {
	e.path = strings.TrimPrefix(path.Clean("/"+p), "/")
	if e.path == "" {
		return
	}
	for d := path.Dir(e.path); d != "."; d = path.Dir(d) {
		if _, ok := t.entries[d]; !ok {
			t.entries[d] = entry{path: d, kind: kindDir, perm: 0o755}
		}
	}
	t.entries[e.path] = e
}

func (t *tree) file(p string, data []byte, perm fs.FileMode) {
	t.add(p, entry{kind: kindFile, perm: perm, data: data})
}

// dir adds a directory; sticky sets the bit that keeps users apart in /tmp.
func (t *tree) dir(p string, perm fs.FileMode, sticky bool) {
	if sticky {
		perm |= 0o1000
	}
	t.add(p, entry{kind: kindDir, perm: perm})
}

// copy adds a file or a directory of the machine, with only the executable
// bits of its modes, so that the builder's umask does not show.
// src itself may be a link.
func (t *tree) copy(src, dst string) error {
	src, err := filepath.EvalSymlinks(src)
	if err != nil {
		return fmt.Errorf("find file to add: %w", err)
	}
	return filepath.WalkDir(src, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("walk %s: %w", src, err)
		}
		rel, err := filepath.Rel(src, p)
		if err != nil {
			return fmt.Errorf("walk %s: %w", src, err)
		}
		return t.copyOne(p, path.Join(dst, filepath.ToSlash(rel)))
	})
}

func (t *tree) copyOne(src, dst string) error {
	info, err := os.Lstat(src)
	if err != nil {
		return fmt.Errorf("look at file to add: %w", err)
	}
	switch info.Mode().Type() {
	case fs.ModeDir:
		t.dir(dst, 0o755, false)
	case fs.ModeSymlink:
		target, err := os.Readlink(src)
		if err != nil {
			return fmt.Errorf("read link to add: %w", err)
		}
		t.add(dst, entry{kind: kindLink, perm: 0o777, data: []byte(target)})
	case 0:
		data, err := os.ReadFile(src)
		if err != nil {
			return fmt.Errorf("read file to add: %w", err)
		}
		perm := fs.FileMode(0o644)
		if info.Mode()&0o111 != 0 {
			perm = 0o755
		}
		t.file(dst, data, perm)
	default:
		return fmt.Errorf("add %s: neither file, directory nor link: %w", src, errdefs.ErrInvalidArgument)
	}
	return nil
}

// sorted lists the entries with parents before children.
func (t *tree) sorted() []entry {
	all := make([]entry, 0, len(t.entries))
	for _, e := range t.entries {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b entry) int { return strings.Compare(a.path, b.path) })
	return all
}
