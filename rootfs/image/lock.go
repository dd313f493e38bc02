package image

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
)

// Uses of the packages in packages.lock.
const (
	kernelUse      = "kernel"
	vsockDeviceUse = "vsock-device"
)

// headersUses are what modules are built with, in the kernel's own version. The
// first holds the folder to build in.
func headersUses() []string {
	return []string{"kernel-headers", "kernel-headers-common", "kernel-kbuild"}
}

// A pin is one stanza of packages.lock: the package that was last looked at,
// and what may replace it once the mirror has dropped it.
type pin struct {
	candidate
	use, suite             string
	seriesName, seriesVers string // patterns of path.Match
}

// loadPin finds the package pinned for a use in the lock file of a source tree.
func loadPin(root, use string) (pin, error) {
	path := filepath.Join(root, "rootfs", "packages.lock")
	f, err := os.Open(path)
	if err != nil {
		return pin{}, fmt.Errorf("open package lock: %w", err)
	}
	defer f.Close()
	all, err := parseStanzas(f)
	if err != nil {
		return pin{}, fmt.Errorf("read %s: %w", path, err)
	}
	for _, s := range all {
		if s["use"] == use {
			return newPin(s)
		}
	}
	return pin{}, fmt.Errorf("%s has no package for %q: %w", path, use, errdefs.ErrNotFound)
}

func newPin(s stanza) (pin, error) {
	for _, field := range []string{"use", "suite", "package", "version", "sha256", "series"} {
		if s[field] == "" {
			return pin{}, fmt.Errorf("pin %q lacks field %s: %w", s["use"], field, errdefs.ErrInvalidArgument)
		}
	}
	name, version, ok := strings.Cut(s["series"], " ")
	if !ok {
		return pin{}, fmt.Errorf("pin %q: series wants two patterns: %w", s["use"], errdefs.ErrInvalidArgument)
	}
	return pin{
		candidate: candidate{s["package"], s["version"], s["sha256"]},
		use:       s["use"], suite: s["suite"],
		seriesName: name, seriesVers: strings.TrimSpace(version),
	}, nil
}
