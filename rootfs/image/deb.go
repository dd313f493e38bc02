package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
)

// walkDeb shows every regular file of a Debian package to visit, by its path
// without the leading slash. visit must read what it wants before it returns.
func walkDeb(ctx context.Context, path string, visit func(name string, r io.Reader) error) error {
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", path)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start dpkg-deb: %w", err)
	}
	walked := walkTar(tar.NewReader(out), visit)
	if walked == nil {
		// Padding after the last member: dpkg-deb fails when nobody reads it.
		_, walked = io.Copy(io.Discard, out)
	}
	out.Close()
	if err := cmd.Wait(); walked == nil && err != nil {
		return fmt.Errorf("unpack %s: %w: %s", path, err, strings.TrimSpace(stderr.String()))
	}
	return walked
}

func walkTar(tr *tar.Reader, visit func(name string, r io.Reader) error) error {
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read package: %w", err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if err := visit(strings.TrimPrefix(h.Name, "./"), tr); err != nil {
			return err
		}
	}
}

// VsockDevice returns the path of the vhost-device-vsock program, which gives
// a guest a vsock device without help from the host's kernel.
func (s *Store) VsockDevice(ctx context.Context) (string, error) {
	deb, err := s.fetch(ctx, vsockDeviceUse)
	if err != nil {
		return "", err
	}
	path := filepath.Join(s.cache(), "tools", "vhost-device-vsock-"+deb.SHA256[:12])
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	var program []byte
	err = walkDeb(ctx, deb.Path, func(name string, r io.Reader) (err error) {
		if name == "usr/bin/vhost-device-vsock" {
			program, err = io.ReadAll(r)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	if program == nil {
		return "", fmt.Errorf("package %s holds no vhost-device-vsock: %w", deb.Name, errdefs.ErrNotFound)
	}
	return path, writeFile(path, program, 0o755)
}

// writeFile makes the file appear complete or not at all.
func writeFile(path string, data []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return fmt.Errorf("create %s: %w", path, err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
