package image

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
)

// FindRoot walks up from the working directory to the source tree.
func FindRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find working directory: %w", err)
	}
	for start := dir; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "rootfs", "packages.lock")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no source tree with rootfs/packages.lock above %s: %w", start, errdefs.ErrNotFound)
		}
	}
}

// BuildPause compiles the pause program and returns its path. It is the only
// program that an image build compiles.
func (s *Store) BuildPause(ctx context.Context) (string, error) {
	out := filepath.Join(s.cache(), "tools", "pause")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false",
		"-ldflags", "-s -w -buildid=", "-o", out, "./rootfs/pause")
	cmd.Dir = s.Root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build pause program: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}
