package network

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func dnsFiles(t *testing.T) DNSFiles {
	t.Helper()
	dir := t.TempDir()
	return DNSFiles{Written: filepath.Join(dir, "run", "resolv.conf"), Guest: filepath.Join(dir, "resolv.conf")}
}

// privateMounts gives the test's thread mounts of its own. The thread is never
// unlocked, so it and they end with the test.
func privateMounts(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to mount")
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		t.Skip("cannot make a mount namespace:", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Skip("cannot make mounts private:", err)
	}
}

func TestSetDNS(t *testing.T) {
	f := dnsFiles(t)
	if err := os.WriteFile(f.Guest, []byte("nameserver 192.0.2.1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	privateMounts(t)
	for _, want := range []string{"search a.b\nnameserver 10.96.0.10", "nameserver 10.96.0.11"} {
		if err := SetDNS(t.Context(), f, append(strings.Split(want, "\n"), "")); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(f.Guest)
		if err != nil || string(got) != want {
			t.Errorf("got %q, %v; want %q", got, err, want)
		}
	}
	if err := unix.Unmount(f.Guest, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.Unmount(f.Guest, 0); err == nil {
		t.Error("the second call mounted again")
	}
}

// TestSetDNSTakesLongFiles has the longest list of search domains that
// Kubernetes allows, in a file that is mostly comments.
func TestSetDNSTakesLongFiles(t *testing.T) {
	lines := []string{"search " + strings.Repeat("a.example ", 204) + "b.exampl", "nameserver 10.96.0.10"}
	for range 100 {
		lines = append(lines, "# managed")
	}
	if got, err := resolverText(lines); err != nil || !strings.Contains(got, "b.exampl\nnameserver") {
		t.Errorf("got %.80q, %v", got, err)
	}
}

func TestSetDNSCreatesTheGuestFile(t *testing.T) {
	f := dnsFiles(t)
	privateMounts(t)
	if err := SetDNS(t.Context(), f, []string{"nameserver 10.96.0.10"}); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(f.Guest); string(got) != "nameserver 10.96.0.10" {
		t.Errorf("got %q", got)
	}
	if err := unix.Unmount(f.Guest, 0); err != nil {
		t.Error(err)
	}
}

func TestSetDNSRefuses(t *testing.T) {
	f := dnsFiles(t)
	for name, lines := range map[string][]string{
		"newline":   {"nameserver 1.2.3.4\nx"},
		"long line": {strings.Repeat("x", maxDNSLine+1)},
		"too many":  make([]string, maxDNSLines+1),
	} {
		if err := SetDNS(t.Context(), f, lines); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if err := SetDNS(t.Context(), f, []string{"", ""}); err != nil {
		t.Errorf("empty lines: %v", err)
	}
	if _, err := os.Stat(f.Written); err == nil {
		t.Error("a refused request wrote the file")
	}
	if err := os.Mkdir(f.Guest, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := SetDNS(t.Context(), f, []string{"x"}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("directory: got %v", err)
	}
}
