package storage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/coffer-cc/coffer/mount"
)

// pauseSize holds the pause program and what a runtime creates beside it.
const pauseSize = "16m"

// attachPause fills a small tmpfs with the one program that the pause bundle's
// config.json runs. The bundle is part of the guest image, so it is trusted;
// the tmpfs makes the root writable without touching it.
func (h imageGuestPull) attachPause(ctx context.Context, p mount.Place, s Storage) (Volume, error) {
	config, err := readConfig(h.pause)
	if err != nil {
		return nil, err
	}
	program, err := programOf(config)
	if err != nil {
		return nil, err
	}
	m, err := attach(ctx, p, s, func() error {
		o := mount.Options{Data: "mode=0755,size=" + pauseSize}
		if err := p.Mount(mount.Request{Source: "pause", FSType: "tmpfs", Options: o}); err != nil {
			return err
		}
		if err := copyProgram(filepath.Join(h.pause, "rootfs"), p, program); err != nil {
			return undone(err, p.Unmount())
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return paused{m, config}, nil
}

// paused is the Rootfs of the pause bundle.
type paused struct {
	mounted
	config []byte // that programOf has accepted
}

// Image implements Rootfs.
func (paused) Image() (Image, bool) { return Image{}, false }

// Pause implements Rootfs.
func (v paused) Pause() (*specs.Process, bool) {
	var spec specs.Spec
	err := json.Unmarshal(v.config, &spec)
	return spec.Process, err == nil
}

func readConfig(bundle string) ([]byte, error) {
	const most = 1 << 20
	f, err := os.Open(filepath.Join(bundle, "config.json"))
	if err != nil {
		return nil, fmt.Errorf("read pause bundle: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return nil, fmt.Errorf("read pause bundle: %w", err)
	}
	return text, nil
}

// programOf returns the path of the program that config runs, without the
// slash at its begin.
func programOf(config []byte) (string, error) {
	var spec specs.Spec
	if err := json.Unmarshal(config, &spec); err != nil {
		return "", fmt.Errorf("read pause bundle: config.json: %w", err)
	}
	if spec.Process == nil || len(spec.Process.Args) == 0 {
		return "", fmt.Errorf("pause bundle runs no program: %w", errdefs.ErrFailedPrecondition)
	}
	program := strings.TrimPrefix(spec.Process.Args[0], "/")
	if !path.IsAbs(spec.Process.Args[0]) || !filepath.IsLocal(program) {
		return "", fmt.Errorf("pause bundle's program %q is no absolute path: %w", spec.Process.Args[0], errdefs.ErrFailedPrecondition)
	}
	return program, nil
}

// copyProgram copies the file program from one root directory to another.
func copyProgram(from string, to mount.Place, program string) error {
	src, err := os.OpenInRoot(from, program)
	if err != nil {
		return fmt.Errorf("read pause bundle: %w", err)
	}
	defer src.Close()
	dir, err := to.Open()
	if err != nil {
		return err
	}
	defer dir.Close()
	root, err := os.OpenRoot(mount.FDPath(dir))
	if err != nil {
		return fmt.Errorf("copy pause program: %w", err)
	}
	defer root.Close()
	if parent := path.Dir(program); parent != "." {
		if err := root.MkdirAll(parent, 0o755); err != nil {
			return fmt.Errorf("copy pause program: %w", err)
		}
	}
	dst, err := root.OpenFile(program, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return fmt.Errorf("copy pause program: %w", err)
	}
	_, err = io.Copy(dst, src)
	if err := errors.Join(err, dst.Close()); err != nil {
		return fmt.Errorf("copy pause program: %w", err)
	}
	return nil
}
