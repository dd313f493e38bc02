package image

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"strings"

	"github.com/containerd/errdefs"
)

// A kernel is what a Debian kernel package holds: the image to boot and its
// modules, still compressed, and modules of others that were added.
type kernel struct {
	image   []byte
	modules map[string]packedModule // by name with underscores
	builtin map[string]bool         // modules that are part of the image
}

type packedModule struct {
	path string // in the package, and in the guest less its compression suffix
	data []byte // compressed where the path says so
}

func (p packedModule) unpack(ctx context.Context) ([]byte, error) {
	if !strings.HasSuffix(p.path, ".xz") {
		return p.data, nil
	}
	return unxz(ctx, p.data)
}

// A module is ready to be loaded with finit_module.
type module struct {
	Path  string // relative to the guest's root
	Data  []byte
	needs []string // names of the modules that it depends on directly
	spare bool     // not to be loaded at boot
	on    []string // patterns of the devices that it is for; empty is always
}

func readKernel(ctx context.Context, deb string) (*kernel, error) {
	k := &kernel{modules: map[string]packedModule{}, builtin: map[string]bool{}}
	err := walkDeb(ctx, deb, func(name string, r io.Reader) error {
		base := path.Base(name)
		switch {
		case strings.HasPrefix(name, "boot/vmlinuz-"):
			data, err := io.ReadAll(r)
			k.image = data
			return err
		case strings.HasSuffix(base, ".ko.xz"):
			data, err := io.ReadAll(r)
			k.modules[moduleName(base)] = packedModule{name, data}
			return err
		case base == "modules.builtin":
			data, err := io.ReadAll(r)
			for line := range strings.Lines(string(data)) {
				k.builtin[moduleName(path.Base(strings.TrimSpace(line)))] = true
			}
			return err
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if k.image == nil || len(k.modules) == 0 {
		return nil, fmt.Errorf("package %s holds no kernel with .ko.xz modules: %w", deb, errdefs.ErrInvalidArgument)
	}
	return k, nil
}

// add takes a module that is not of the package from a file, under the name that
// it returns. It goes where depmod(8) expects modules of others.
func (k *kernel) add(file string) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("add module: %w", err)
	}
	base := path.Base(file)
	for _, m := range k.modules {
		if dir, _, ok := releaseDir(m.path); ok {
			k.modules[moduleName(base)] = packedModule{dir + "/updates/" + base, data}
			return moduleName(base), nil
		}
	}
	return "", fmt.Errorf("add module %s: the kernel has no folder for modules: %w", base, errdefs.ErrInvalidArgument)
}

// moduleName is the name the kernel knows a module file by.
func moduleName(base string) string {
	name, _, _ := strings.Cut(base, ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// load returns the wanted modules and what they depend on, in an order in
// which each finds its dependencies loaded, and then those that only the spare
// ones need. A driver is for the devices that it names, and so is what nobody
// but drivers needs.
func (k *kernel) load(ctx context.Context, wanted, spare []string) ([]module, error) {
	var ordered []module
	needs, devices := map[string][]string{}, map[string][]string{}
	state := map[string]bool{} // absent: not seen, false: on the path, true: done
	var visit func(name string) error
	visit = func(name string) error {
		name = moduleName(name)
		if done, seen := state[name]; seen {
			if !done {
				return fmt.Errorf("module %s depends on itself: %w", name, errdefs.ErrInvalidArgument)
			}
			return nil
		}
		state[name] = false
		packed, ok := k.modules[name]
		if !ok && !k.builtin[name] {
			return fmt.Errorf("the kernel has no module %s: %w", name, errdefs.ErrNotFound)
		}
		if ok {
			data, err := packed.unpack(ctx)
			if err != nil {
				return fmt.Errorf("decompress module %s: %w", name, err)
			}
			info, err := modinfo(data)
			if err != nil {
				return fmt.Errorf("read module %s: %w", name, err)
			}
			needs[name], devices[name] = info.depends, info.devices
			for _, n := range info.depends {
				if err := visit(n); err != nil {
					return err
				}
			}
			ordered = append(ordered, module{Path: strings.TrimSuffix(packed.path, ".xz"), Data: data, needs: info.depends})
		}
		state[name] = true
		return nil
	}
	for _, name := range wanted {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	boot := len(ordered)
	for _, name := range spare {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	for i := range ordered[boot:] {
		ordered[boot+i].spare = true
	}
	on := conditions(wanted, needs, devices)
	for i, m := range ordered {
		ordered[i].on = on[moduleName(path.Base(m.Path))]
	}
	return ordered, nil
}

// unxz runs xz: the standard library has no decoder, and the build of the
// kernel package needs the tool anyway.
func unxz(ctx context.Context, data []byte) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "xz", "--decompress", "--stdout")
	cmd.Stdin = bytes.NewReader(data)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("run xz: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}
