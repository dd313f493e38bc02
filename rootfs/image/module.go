package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
)

// BuildModule compiles the kernel module of a folder, which holds a Kbuild file,
// for the kernel that Build takes, and returns the path of its .ko file. It is
// built in a copy and kept: the same sources and headers are compiled once.
// Nothing is installed on the machine; it has make and the kernel's compiler.
func (s *Store) BuildModule(ctx context.Context, dir string) (string, error) {
	kernel, err := s.fetch(ctx, kernelUse)
	if err != nil {
		return "", err
	}
	var debs []packageFile
	for _, use := range headersUses() {
		deb, err := s.fetchBeside(ctx, use, kernel)
		if err != nil {
			return "", fmt.Errorf("get headers of kernel %s: %w", kernel.Version, err)
		}
		debs = append(debs, deb)
	}
	headers := filepath.Join(s.cache(), "headers", sumOf(debs))
	sources, err := hashFolder(dir)
	if err != nil {
		return "", err
	}
	out := filepath.Join(s.cache(), "modules", filepath.Base(headers)+"-"+sources)
	unlock, err := lockDir(s.cache())
	if err != nil {
		return "", err
	}
	defer unlock()
	if ko, err := onlyModule(out); err == nil {
		return ko, nil
	}
	if err := s.unpackHeaders(ctx, debs, headers); err != nil {
		return "", err
	}
	s.say("build the module of %s for %s", filepath.Base(dir), kernel.Name)
	return compileModule(ctx, filepath.Join(headers, "usr/src", debs[0].Name), dir, out)
}

// sumOf names a set of packages.
func sumOf(debs []packageFile) string {
	h := sha256.New()
	for _, d := range debs {
		fmt.Fprintln(h, d.SHA256)
	}
	return hex.EncodeToString(h.Sum(nil))[:12]
}

// hashFolder names the content of a folder without folders of its own.
func hashFolder(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", fmt.Errorf("read sources of module: %w", err)
	}
	h := sha256.New()
	for _, e := range entries {
		sum, err := fileSum(filepath.Join(dir, e.Name()))
		if err != nil {
			return "", err
		}
		fmt.Fprintln(h, sum, e.Name())
	}
	return hex.EncodeToString(h.Sum(nil))[:12], nil
}

// unpackHeaders makes what the packages would install, in a folder of its own
// that appears complete or not at all.
func (s *Store) unpackHeaders(ctx context.Context, debs []packageFile, dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	s.say("unpack %s", debs[0].Name)
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	scratch, err := os.MkdirTemp(filepath.Dir(dir), ".new-")
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	defer os.RemoveAll(scratch)
	for _, d := range debs {
		if err := run(exec.CommandContext(ctx, "dpkg-deb", "--extract", d.Path, scratch)); err != nil {
			return fmt.Errorf("unpack %s: %w", d.Name, err)
		}
	}
	// The makefile is one line that includes another package's; the links
	// between the packages are relative already.
	makefile := filepath.Join(scratch, "usr/src", debs[0].Name, "Makefile")
	text, err := os.ReadFile(makefile)
	if err != nil {
		return fmt.Errorf("package %s holds no headers: %w", debs[0].Name, err)
	}
	text = bytes.ReplaceAll(text, []byte("include /usr/src/"), []byte("include ../"))
	if err := writeFile(makefile, text, 0o644); err != nil {
		return err
	}
	if err := os.Rename(scratch, dir); err != nil {
		return fmt.Errorf("keep headers: %w", err)
	}
	return nil
}

// compileModule builds in a copy of the sources and puts the module into out.
func compileModule(ctx context.Context, headers, dir, out string) (string, error) {
	scratch, err := os.MkdirTemp("", "coffer-module-")
	if err != nil {
		return "", fmt.Errorf("make directory: %w", err)
	}
	defer os.RemoveAll(scratch)
	if err := os.CopyFS(scratch, os.DirFS(dir)); err != nil {
		return "", fmt.Errorf("copy sources of module: %w", err)
	}
	// Neither debug symbols nor type information for BPF, which takes a tool more.
	cmd := exec.CommandContext(ctx, "make", "--silent", "--directory="+headers, "M="+scratch,
		"KCFLAGS=-g0 -Werror", "CONFIG_DEBUG_INFO_BTF_MODULES=", "modules")
	// The flags of a make that this runs under are not for the kernel's.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	if err := run(cmd); err != nil {
		return "", fmt.Errorf("build the module of %s: %w", dir, err)
	}
	built, err := onlyModule(scratch)
	if err != nil {
		return "", err
	}
	data, err := os.ReadFile(built)
	if err != nil {
		return "", fmt.Errorf("read module: %w", err)
	}
	ko := filepath.Join(out, filepath.Base(built))
	return ko, writeFile(ko, data, 0o644)
}

// onlyModule is the one module file of a folder.
func onlyModule(dir string) (string, error) {
	found, err := filepath.Glob(filepath.Join(dir, "*.ko"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("there are %d modules in %s and not one: %w", len(found), dir, errdefs.ErrNotFound)
	}
	return found[0], nil
}

// run runs a program and puts into the error what it said.
func run(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run %s: %w: %s", filepath.Base(cmd.Path), err, strings.TrimSpace(string(out)))
	}
	return nil
}
