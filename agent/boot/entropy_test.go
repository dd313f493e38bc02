package boot

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestEntropy(t *testing.T) {
	for _, tc := range []struct {
		name, device, quality string
		silent                bool // the device never answers
		wantQuality           string
		wantStirred           int
	}{
		{"virtio-rng", "virtio_rng.0\n", "1024\n", false, "0\n", hostSeed},
		{"silent host", "virtio_rng.0\n", "1024\n", true, "0\n", 0},
		{"old kernel", "virtio_rng.0\n", "", false, "", hostSeed},
		{"no device chosen", "none\n", "1024\n", false, "1024\n", 0},
		{"no framework", "", "", false, "", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := bootstrap{Options{Root: t.TempDir()}}
			for path, text := range map[string]string{hwrngDir + "/rng_current": tc.device, hwrngDir + "/rng_quality": tc.quality} {
				if text != "" {
					write(t, b.path(path), text)
				}
			}
			write(t, b.path("/dev/urandom"), "")
			if !tc.silent {
				write(t, b.path(hwrngDevice), strings.Repeat("host", 100))
			} else if err := unix.Mkfifo(b.path(hwrngDevice), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := b.entropy(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got, _ := os.ReadFile(b.path(hwrngDir + "/rng_quality")); string(got) != tc.wantQuality {
				t.Errorf("quality %q, want %q", got, tc.wantQuality)
			}
			if got, _ := os.ReadFile(b.path("/dev/urandom")); len(got) != tc.wantStirred {
				t.Errorf("%d bytes were stirred in, want %d", len(got), tc.wantStirred)
			}
		})
	}
}

// A kernel that keeps its credit for the host's numbers is no guest to go on with.
func TestEntropyCreditStays(t *testing.T) {
	b := bootstrap{Options{Root: t.TempDir()}}
	write(t, b.path(hwrngDir+"/rng_current"), "virtio_rng.0\n")
	if err := os.Mkdir(filepath.Join(b.path(hwrngDir), "rng_quality"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := b.entropy(t.Context()); err == nil || !strings.Contains(err.Error(), "credit") {
		t.Errorf("got %v", err)
	}
}
