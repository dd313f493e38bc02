package image

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// archive is a Debian archive in a directory, and a machine that trusts it.
type archive struct {
	t          *testing.T
	root, etc  string
	index      string
	packageSum map[string]string // by file name
}

func newArchive(t *testing.T) *archive {
	a := &archive{t: t, root: t.TempDir(), etc: t.TempDir(), packageSum: map[string]string{}}
	writeTree(t, a.etc, map[string]string{
		"os-release":       "VERSION_CODENAME=here\n",
		"apt/sources.list": "deb [trusted=yes] file:" + a.root + " here main\n",
	})
	return a
}

// add builds a package from files and publishes it in suite "there".
func (a *archive) add(name, version string, files map[string]string) {
	a.t.Helper()
	build := a.t.TempDir()
	control := fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: amd64\nMaintainer: nobody\nDescription: test\n", name, version)
	writeTree(a.t, build, files)
	writeTree(a.t, build, map[string]string{"DEBIAN/control": control})
	file := name + "_" + version + "_amd64.deb"
	if out, err := exec.Command("dpkg-deb", "--root-owner-group", "--build", build, filepath.Join(a.root, file)).CombinedOutput(); err != nil {
		a.t.Fatalf("build package: %v: %s", err, out)
	}
	data, err := os.ReadFile(filepath.Join(a.root, file))
	if err != nil {
		a.t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	a.packageSum[file] = hex.EncodeToString(sum[:])
	a.index += fmt.Sprintf("%sFilename: %s\nSize: %d\nSHA256: %x\n\n", control, file, len(data), sum)
	sum = sha256.Sum256([]byte(a.index))
	writeTree(a.t, a.root, map[string]string{
		"dists/there/main/binary-amd64/Packages": a.index,
		"dists/there/Release": fmt.Sprintf("Suite: there\nCodename: there\nComponents: main\nArchitectures: amd64\n"+
			"Date: Mon, 05 Jan 2026 00:00:00 UTC\nSHA256:\n %x %d main/binary-amd64/Packages\n", sum, len(a.index)),
	})
}

// store opens a source tree whose lock pins one package.
func (a *archive) store(lock string) (*Store, *[]string) {
	root, said := a.t.TempDir(), new([]string)
	writeTree(a.t, root, map[string]string{"rootfs/packages.lock": lock})
	return &Store{Root: root, etc: a.etc, Progress: func(line string) { *said = append(*said, line) }}, said
}

func lockOf(use, name, version, sum, series string) string {
	return fmt.Sprintf("# lock\nUse: %s\nSuite: there\nPackage: %s\nVersion: %s\nSHA256: %s\nSeries: %s\n", use, name, version, sum, series)
}

func TestFetch(t *testing.T) {
	a := newArchive(t)
	for _, v := range []string{"1.9", "1.10", "2.0"} {
		a.add("tool-"+v, v, map[string]string{"v": v})
	}
	pinned := a.packageSum["tool-1.9_1.9_amd64.deb"]
	for _, tc := range []struct {
		name, lock, version string
		err                 error
		dropped             bool
	}{
		{name: "pinned", lock: lockOf("x", "tool-1.9", "1.9", pinned, "tool-1.* 1.*"), version: "1.9"},
		{name: "dropped", lock: lockOf("x", "tool-1.8", "1.8", pinned, "tool-1.* 1.*"), version: "1.10", dropped: true},
		{name: "dropped with its series", lock: lockOf("x", "tool-3", "3", pinned, "tool-3 3*"), err: errdefs.ErrNotFound},
		{name: "changed", lock: lockOf("x", "tool-1.9", "1.9", strings.Repeat("0", 64), "tool-1.* 1.*"), err: errChecksum},
		{name: "not pinned", lock: lockOf("y", "tool-1.9", "1.9", pinned, "tool-1.* 1.*"), err: errdefs.ErrNotFound},
		{name: "lock without a checksum", lock: lockOf("x", "tool-1.9", "1.9", "", "tool-1.* 1.*"), err: errdefs.ErrInvalidArgument},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, said := a.store(tc.lock)
			got, err := s.fetch(t.Context(), "x")
			if tc.err == errdefs.ErrNotFound && err == nil || tc.err != errdefs.ErrNotFound && !errors.Is(err, tc.err) {
				t.Fatalf("error %v, want %v", err, tc.err)
			}
			if got.Version != tc.version {
				t.Errorf("got version %q, want %q", got.Version, tc.version)
			}
			if dropped := strings.Contains(strings.Join(*said, "\n"), "has dropped"); dropped != tc.dropped {
				t.Errorf("said dropped %v, want %v: %q", dropped, tc.dropped, *said)
			}
		})
	}
}

func TestFetchKeepsPackages(t *testing.T) {
	a := newArchive(t)
	a.add("tool", "1", map[string]string{"v": "1"})
	s, _ := a.store(lockOf("x", "tool", "1", a.packageSum["tool_1_amd64.deb"], "tool 1"))
	first, err := s.fetch(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(a.root); err != nil {
		t.Fatal(err)
	}
	if again, err := s.fetch(t.Context(), "x"); err != nil || again != first {
		t.Fatalf("without the mirror: %+v, %v; want %+v", again, err, first)
	}
	if err := os.WriteFile(first.Path, []byte("changed on disk"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := s.fetch(t.Context(), "x"); err == nil {
		t.Fatalf("a changed file was taken: %+v", got)
	}
}
