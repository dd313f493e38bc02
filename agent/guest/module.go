package guest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Bounds on what the host says about one module.
const (
	maxModuleName   = 64
	maxModuleParams = 4 << 10
)

// Modules loads kernel modules of the guest's image by their names, as
// modprobe(8) does. An image with a modprobe has its own ideas, aliases and
// options, so that is used then; else modules.dep tells what to load.
type Modules struct {
	Root    string // "/" when empty; of the image
	Release string // of the running kernel; asked when empty

	// init loads one file; finit_module(2) when nil.
	init func(path, params string) error
}

// Load loads the module and what it depends on. One that is there already, or
// is part of the kernel, is left as it is. A name or parameter that modprobe
// could take for something else is ErrInvalidArgument, and a module that the
// image lacks ErrNotFound.
func (m Modules) Load(ctx context.Context, name string, params []string) error {
	if err := checkModule(name, params); err != nil {
		return err
	}
	modprobe := filepath.Join(m.root(), "sbin/modprobe")
	if st, err := os.Stat(modprobe); err == nil && st.Mode()&0o111 != 0 {
		return runModprobe(ctx, modprobe, name, params)
	}
	return m.loadFiles(ctx, underscored(name), strings.Join(params, " "))
}

func (m Modules) root() string {
	if m.Root == "" {
		return "/"
	}
	return m.Root
}

// checkModule admits names as files have them, and parameters as the kernel
// writes them: words without a space, so that one stays one.
func checkModule(name string, params []string) error {
	bad := func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-'
	}
	if name == "" || len(name) > maxModuleName || name[0] == '-' || strings.ContainsFunc(name, bad) {
		return fmt.Errorf("name: %.80q is no name of a kernel module: %w", name, errdefs.ErrInvalidArgument)
	}
	total := 0
	for i, p := range params {
		key, _, _ := strings.Cut(p, "=")
		total += len(p) + 1
		if key == "" || key[0] == '-' || strings.ContainsFunc(key, func(c rune) bool { return c != '.' && bad(c) }) ||
			strings.ContainsFunc(p, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '"' }) {
			return fmt.Errorf("parameters[%d]: %.80q is no parameter of a kernel module: %w", i, p, errdefs.ErrInvalidArgument)
		}
	}
	if total > maxModuleParams {
		return fmt.Errorf("parameters: longer than %d bytes: %w", maxModuleParams, errdefs.ErrInvalidArgument)
	}
	return nil
}

func runModprobe(ctx context.Context, program, name string, params []string) error {
	cmd := exec.CommandContext(ctx, program, append([]string{"-v", "--", name}, params...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("modprobe %s: %w: %.400s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// loadFiles loads dependencies first. modules.dep names all of them, not only
// the direct ones, each before those that it needs itself.
func (m Modules) loadFiles(ctx context.Context, name, params string) error {
	if _, err := os.Stat(filepath.Join(m.root(), "sys/module", name)); err == nil {
		slog.DebugContext(ctx, "kernel module is there", "module", name)
		return nil
	}
	dir, err := m.dir()
	if err != nil {
		return err
	}
	files, err := moduleFiles(filepath.Join(dir, "modules.dep"), name)
	if err != nil {
		return err
	}
	for i, file := range slices.Backward(files) {
		given := ""
		if i == 0 {
			given = params
		}
		if err := m.initModule(filepath.Join(dir, file), given); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load kernel module %s: %s: %w", name, file, err)
		}
	}
	slog.InfoContext(ctx, "kernel module loaded", "module", name, "files", len(files))
	return nil
}

// dir is where the modules of the running kernel lie.
func (m Modules) dir() (string, error) {
	release := m.Release
	if release == "" {
		var u unix.Utsname
		if err := unix.Uname(&u); err != nil {
			return "", fmt.Errorf("ask for kernel release: %w", err)
		}
		release = unix.ByteSliceToString(u.Release[:])
	}
	return filepath.Join(m.root(), "lib/modules", release), nil
}

// moduleFiles returns the file of a module, and after it those it depends on.
func moduleFiles(dep, name string) ([]string, error) {
	f, err := os.Open(dep)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("kernel module %s: this image has no modules to load: %w", name, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("read dependencies of modules: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		file, needs, _ := strings.Cut(lines.Text(), ":")
		base, _, _ := strings.Cut(filepath.Base(file), ".ko")
		if underscored(base) == name {
			return append([]string{file}, strings.Fields(needs)...), nil
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read dependencies of modules: %w", err)
	}
	return nil, fmt.Errorf("kernel module %s is not in this image: %w", name, errdefs.ErrNotFound)
}

// underscored is how the kernel itself spells the name of a module.
func underscored(name string) string { return strings.ReplaceAll(name, "-", "_") }

func (m Modules) initModule(path, params string) error {
	if m.init != nil {
		return m.init(path, params)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	flags := 0
	if !strings.HasSuffix(path, ".ko") { // .ko.xz and its kind
		flags = unix.MODULE_INIT_COMPRESSED_FILE
	}
	return unix.FinitModule(int(f.Fd()), params, flags)
}
