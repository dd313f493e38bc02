package image

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// headersStore is an archive whose lock is out of date: it has the kernel 1.2
// that takes the place of 1.1, and headers for that and for 1.3. Its makefiles
// build by a copy.
func headersStore(t *testing.T, kbuild string) (*Store, *[]string) {
	a := newArchive(t)
	lock := ""
	pin := func(use, name, series string) {
		lock += strings.TrimPrefix(lockOf(use, name+"-1.1", "1.1", strings.Repeat("0", 64), name+"-1.* "+series), "# lock\n") + "\n"
	}
	a.add("linux-1.2", "1.2", map[string]string{"boot/vmlinuz-1.2": "kernel"})
	pin(kernelUse, "linux", "1.*")
	for _, v := range []string{"1.2", "1.3"} {
		a.add("headers-"+v, v, map[string]string{"usr/src/headers-" + v + "/Makefile": "include /usr/src/common-" + v + "/Makefile\n"})
		a.add("common-"+v, v, map[string]string{"usr/src/common-" + v + "/Makefile": "modules:\n\tcat $(M)/m.c " + kbuild + " >$(M)/m.ko\n"})
		a.add("kbuild-"+v, v, map[string]string{"usr/lib/kbuild-" + v + "/version": v})
	}
	for i, name := range []string{"headers", "common", "kbuild"} {
		pin(headersUses()[i], name, "1.*")
	}
	return a.store(lock)
}

func TestBuildModule(t *testing.T) {
	s, said := headersStore(t, "../../lib/kbuild-1.2/version")
	dir := t.TempDir()
	build := func(source string) string {
		t.Helper()
		writeTree(t, dir, map[string]string{"m.c": source})
		path, err := s.BuildModule(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	compiled := func() int { return strings.Count(strings.Join(*said, "\n"), "build the module") }

	// A make around this one has ideas of its own.
	t.Setenv("MAKEFLAGS", "--dry-run")
	if got := build("first "); got != "first 1.2" {
		t.Errorf("built %q: the headers are not the kernel's", got)
	}
	if build("first "); compiled() != 1 {
		t.Errorf("compiled %d times", compiled())
	}
	if got := build("second "); got != "second 1.2" || compiled() != 2 {
		t.Errorf("built %q after the source changed", got)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) != 1 {
		t.Errorf("the build leaves %v among the sources", left)
	}
}

func TestModuleThatDoesNotBuild(t *testing.T) {
	s, _ := headersStore(t, "nosuch")
	dir := t.TempDir()
	writeTree(t, dir, map[string]string{"m.c": "source"})
	for range 2 {
		if path, err := s.BuildModule(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "nosuch: No such file") {
			t.Errorf("got %q and %v, without what make said", path, err)
		}
	}
}
