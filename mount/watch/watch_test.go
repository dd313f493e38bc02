package watch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/mount"
)

// pair is a mirror of one directory in another.
type pair struct {
	*testing.T
	*Mirror
	source, target string
}

func newPair(t *testing.T) *pair {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("files of other owners need root")
	}
	root := t.TempDir()
	p := &pair{T: t, source: filepath.Join(root, "source"), target: filepath.Join(root, "target"), Mirror: new(Mirror)}
	for _, dir := range []string{p.source, p.target} {
		p.must(os.Mkdir(dir, 0o755))
	}
	var err error
	p.Source, err = mount.At(root, p.source)
	p.must(err)
	p.Target, err = mount.At(root, p.target)
	p.must(err)
	return p
}

func (p *pair) must(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

func (p *pair) write(name, text string) {
	p.Helper()
	path := filepath.Join(p.source, name)
	p.must(os.MkdirAll(filepath.Dir(path), 0o755))
	p.must(os.WriteFile(path, []byte(text), 0o644))
}

func (p *pair) sync() { p.Helper(); p.must(p.Sync()) }

// describe lists a tree with all that a mirror carries over.
func describe(t *testing.T, root string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		text := ""
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text = string(b)
		case unix.S_IFLNK:
			text, _ = os.Readlink(path)
		}
		fmt.Fprintf(&out, "%s %o %d:%d %s\n", rel, st.Mode, st.Uid, st.Gid, text)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func (p *pair) same() {
	p.Helper()
	p.sync()
	if got, want := describe(p.T, p.target), describe(p.T, p.source); got != want {
		p.Errorf("mirror:\n%s\nsource:\n%s", got, want)
	}
}

// configMap makes revision n of a volume as the kubelet does, by a rename of
// the link that all files are reached through.
func (p *pair) configMap(n int, keys ...string) {
	p.Helper()
	dir := fmt.Sprintf("..2026_%04d", n)
	for _, k := range keys {
		p.write(dir+"/"+k, fmt.Sprintf("%s of revision %d", k, n))
		os.Symlink("..data/"+k, filepath.Join(p.source, k))
	}
	old, _ := os.Readlink(filepath.Join(p.source, "..data"))
	p.must(os.Symlink(dir, filepath.Join(p.source, "..data_tmp")))
	p.must(os.Rename(filepath.Join(p.source, "..data_tmp"), filepath.Join(p.source, "..data")))
	if old != "" {
		p.must(os.RemoveAll(filepath.Join(p.source, old)))
	}
}

func TestMirror(t *testing.T) {
	p := newPair(t)
	p.configMap(1, "a", "b")
	p.must(os.Chown(p.source, 1000, 2000))
	p.same()
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"nothing", func() {}},
		{"new revision", func() { p.configMap(2, "a", "b") }},
		{"new key", func() { p.configMap(3, "a", "b", "c") }},
		{"key gone", func() { p.must(os.Remove(filepath.Join(p.source, "b"))); p.configMap(4, "a", "c") }},
		{"file in place", func() { p.write("plain", "one") }},
		{"file changed", func() { p.write("plain", "other") }},
		{"mode", func() { p.must(os.Chmod(filepath.Join(p.source, "plain"), 0o400)) }},
		{"owner", func() { p.must(os.Chown(filepath.Join(p.source, "plain"), 7, 8)) }},
		{"mode of the root", func() { p.must(os.Chmod(p.source, 0o1770|fs.ModeSetgid)) }},
		{"file becomes directory", func() { p.must(os.Remove(filepath.Join(p.source, "plain"))); p.write("plain/deep/f", "x") }},
		{"directory becomes link", func() {
			p.must(os.RemoveAll(filepath.Join(p.source, "plain")))
			p.must(os.Symlink("/etc/passwd", filepath.Join(p.source, "plain")))
		}},
		{"link becomes file", func() { p.must(os.Remove(filepath.Join(p.source, "plain"))); p.write("plain", "x") }},
		{"all gone", func() {
			names, _ := filepath.Glob(p.source + "/*")
			dots, _ := filepath.Glob(p.source + "/..*")
			for _, n := range append(names, dots...) {
				p.must(os.RemoveAll(n))
			}
		}},
	} {
		t.Run(step.name, func(t *testing.T) {
			step.do()
			(&pair{T: t, Mirror: p.Mirror, source: p.source, target: p.target}).same()
		})
	}
}

// TestSwapIsAtomic reads through ..data while revisions come and go: each read
// finds the whole of one revision.
func TestSwapIsAtomic(t *testing.T) {
	p := newPair(t)
	p.configMap(0, "a", "b")
	p.sync()
	done, read := make(chan struct{}), make(chan int)
	go func() {
		reads := 0
		defer func() { read <- reads }()
		for {
			select {
			case <-done:
				return
			default:
			}
			link := filepath.Join(p.target, "..data")
			revision, err := os.Readlink(link)
			if err != nil {
				t.Errorf("the link is gone: %v", err)
				return
			}
			dir, err := os.Open(filepath.Join(p.target, revision))
			if err != nil {
				continue // it was the old one, and is gone
			}
			name := func(key string) (string, error) {
				fd, err := unix.Openat(int(dir.Fd()), key, unix.O_RDONLY, 0)
				if err != nil {
					return "", err
				}
				defer unix.Close(fd)
				buf := make([]byte, 100)
				n, err := unix.Read(fd, buf)
				return strings.TrimPrefix(string(buf[:max(n, 0)]), key), err
			}
			a, errA := name("a")
			b, errB := name("b")
			dir.Close()
			// The old revision may go while it is open, as on any node.
			now, _ := os.Readlink(link)
			if whole := errA == nil && errB == nil; (whole && (a != b || a == "")) || (!whole && now == revision) {
				t.Errorf("%s holds %q, %v and %q, %v", revision, a, errA, b, errB)
			}
			reads++
		}
	}()
	for n := 1; n <= 40; n++ {
		p.configMap(n, "a", "b")
		p.sync()
	}
	close(done)
	if n := <-read; n == 0 {
		t.Error("nothing was read")
	}
}

// TestStaleLink hides a change halfway: the link still leads to the revision
// that is gone, as the cache of a shared file system may have it.
func TestStaleLink(t *testing.T) {
	p := newPair(t)
	p.configMap(1, "a")
	p.sync()
	before := describe(t, p.target)
	p.must(os.RemoveAll(filepath.Join(p.source, "..2026_0001")))
	p.write("..2026_0002/a", "new")
	if err := p.Sync(); !errdefs.IsUnavailable(err) {
		t.Errorf("got %v", err)
	}
	if after := describe(t, p.target); after != before {
		t.Errorf("mirror changed to %s", after)
	}
	p.same() // it stays like that, so it is meant
	p.configMap(3, "a")
	p.same()
}

// TestFileIsWrittenInPlace is for a subPath: containers have the file itself.
func TestFileIsWrittenInPlace(t *testing.T) {
	p := newPair(t)
	p.must(os.Remove(p.source))
	p.must(os.Remove(p.target))
	p.must(os.WriteFile(p.source, []byte("one"), 0o640))
	p.must(os.WriteFile(p.target, nil, 0o600))
	open, err := os.Open(p.target)
	p.must(err)
	defer open.Close()
	p.same()
	p.must(os.WriteFile(p.source, []byte("more"), 0o640))
	p.same()
	buf := make([]byte, 10)
	if n, _ := open.ReadAt(buf, 0); string(buf[:n]) != "more" {
		t.Errorf("who has the file open reads %q", buf[:n])
	}
}

func TestTooLarge(t *testing.T) {
	for name, fill := range map[string]func(p *pair){
		"entries": func(p *pair) {
			for i := range MaxEntries {
				p.write(fmt.Sprint(i), "")
			}
		},
		"size":  func(p *pair) { p.write("big", strings.Repeat("x", MaxSize)); p.write("one", "x") },
		"depth": func(p *pair) { p.must(os.MkdirAll(p.source+strings.Repeat("/d", 100), 0o755)) },
		"sparse file": func(p *pair) {
			p.write("big", "")
			p.must(os.Truncate(p.source+"/big", 1<<40))
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			p.write("first", "kept")
			p.sync()
			fill(p)
			if err := p.Sync(); !errors.Is(err, ErrTooLarge) || !errdefs.IsResourceExhausted(err) {
				t.Errorf("got %v", err)
			}
			if b, err := os.ReadFile(p.target + "/first"); string(b) != "kept" || err != nil {
				t.Errorf("the mirror holds %q, %v", b, err)
			}
			p.must(os.RemoveAll(p.source))
			p.write("first", "again")
			p.same()
		})
	}
	p := newPair(t)
	for i := range MaxEntries - 1 { // with the root: just as many as may be
		p.write(fmt.Sprint(i), "")
	}
	p.same()
}

// TestHostileTrees sees nothing from outside of the source, and no hang.
func TestHostileTrees(t *testing.T) {
	p := newPair(t)
	p.write("f", "x")
	p.must(unix.Mkfifo(filepath.Join(p.source, "pipe"), 0o644))
	p.must(unix.Mknod(filepath.Join(p.source, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	p.must(os.Symlink("/etc", filepath.Join(p.source, "etc")))
	p.must(os.Chmod(filepath.Join(p.source, "f"), 0o755|fs.ModeSetuid))
	p.sync()
	if got := describe(t, p.target); strings.Contains(got, "pipe") || strings.Contains(got, "null") || strings.Contains(got, "passwd") || strings.Contains(got, "104755") {
		t.Errorf("mirror holds %s", got)
	}
	if link, err := os.Readlink(p.target + "/etc"); link != "/etc" || err != nil {
		t.Errorf("the link is %q, %v", link, err)
	}

	before := describe(t, p.target)
	p.must(os.Rename(p.source, p.source+"2"))
	p.must(os.Symlink("/etc", p.source))
	if err := p.Sync(); !errdefs.IsPermissionDenied(err) {
		t.Errorf("source is a symlink now: %v", err)
	}
	p.must(os.Remove(p.source))
	if err := p.Sync(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("source is gone: %v", err)
	}
	p.must(os.WriteFile(p.source, []byte("a file"), 0o644))
	if err := p.Sync(); err == nil {
		t.Error("a directory became a file")
	}
	if after := describe(t, p.target); after != before {
		t.Errorf("mirror changed to %s, was %s", after, before)
	}
}

func TestRun(t *testing.T) {
	p := newPair(t)
	ctx, cancel := context.WithCancel(t.Context())
	tick, ended := make(chan time.Time), make(chan struct{})
	go func() { defer close(ended); p.Mirror.Run(ctx, tick) }()
	p.write("f", "one")
	tick <- time.Time{}
	tick <- time.Time{} // taken once the first is done
	p.must(os.Rename(p.source, p.source+"2"))
	tick <- time.Time{}
	tick <- time.Time{}
	if b, err := os.ReadFile(p.target + "/f"); string(b) != "one" || err != nil {
		t.Errorf("read %q, %v", b, err)
	}
	p.must(os.Rename(p.source+"2", p.source))
	p.write("f", "two")
	tick <- time.Time{}
	cancel()
	<-ended
	if b, err := os.ReadFile(p.target + "/f"); string(b) != "two" || err != nil {
		t.Errorf("read %q, %v", b, err)
	}
}
