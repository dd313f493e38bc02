package vmtest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// debianRoot fills a directory with packages that are installed on this machine
// and what they depend on: a guest's root as Kata's tools make it, less what
// nobody reads.
func debianRoot(t *testing.T, dir string, packages ...string) {
	t.Helper()
	for _, d := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.MkdirAll(filepath.Join(dir, "usr", d), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("usr/"+d, filepath.Join(dir, d)); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"dev", "etc", "proc", "run", "sys", "tmp", "var", "root", "mnt"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for path, text := range map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\n", "etc/group": "root:x:0:\ntty:x:5:\n", "etc/machine-id": "",
	} {
		if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	list := run(t, "", "dpkg-query", append([]string{"-L"}, closure(t, packages)...)...)
	var files strings.Builder
	for path := range strings.Lines(list) {
		path = strings.TrimSpace(path)
		if st, err := os.Lstat(path); err == nil && !st.IsDir() && !unread(path) {
			files.WriteString(path + "\n")
		}
	}
	archive := filepath.Join(t.TempDir(), "files.tar")
	run(t, files.String(), "tar", "-C", "/", "-P", "--no-recursion", "-T", "-", "-cf", archive)
	run(t, "", "tar", "-C", dir, "-xf", archive)
}

func unread(path string) bool {
	return slices.ContainsFunc([]string{"/usr/share/doc/", "/usr/share/man/", "/usr/share/locale/", "/usr/share/info/", "/usr/lib/udev/hwdb.d/"},
		func(dir string) bool { return strings.HasPrefix(path, dir) })
}

// closure is the packages and all that they need, by the package database.
func closure(t *testing.T, packages []string) []string {
	t.Helper()
	needs := map[string][]string{}
	for line := range strings.Lines(run(t, "", "dpkg-query", "-W", "-f", "${Package}\t${Pre-Depends},${Depends}\n")) {
		name, list, _ := strings.Cut(strings.TrimSpace(line), "\t")
		for dep := range strings.SplitSeq(list, ",") {
			first, _, _ := strings.Cut(strings.TrimSpace(dep), "|")
			first, _, _ = strings.Cut(strings.TrimSpace(first), " ")
			first, _, _ = strings.Cut(first, ":")
			needs[name] = append(needs[name], first)
		}
	}
	var all []string
	for todo := packages; len(todo) > 0; todo = todo[1:] {
		if _, installed := needs[todo[0]]; installed && !slices.Contains(all, todo[0]) {
			all = append(all, todo[0])
			todo = append(todo, needs[todo[0]]...)
		}
	}
	for _, p := range packages {
		if !slices.Contains(all, p) {
			t.Fatalf("package %s is not installed: see rootfs/host-packages", p)
		}
	}
	return all
}

// run runs a program of this machine and returns what it prints.
func run(t *testing.T, stdin, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/sbin:/usr/sbin")
	cmd.Stdin = strings.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %.100q: %v: %s", name, args, err, stderr.String())
	}
	return string(out)
}
