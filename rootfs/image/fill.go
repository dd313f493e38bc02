package image

import (
	"bytes"
	"debug/elf"
	_ "embed"
	"fmt"
	"os"
	"strings"

	"github.com/containerd/errdefs"
)

//go:embed default-policy.rego
var defaultPolicy []byte

// The pause container runs as an unprivileged user with nothing but its root.
const pauseConfig = `{
  "ociVersion": "1.2.0",
  "process": {
    "user": {"uid": 65535, "gid": 65535},
    "args": ["/pause"],
    "env": ["PATH=/"],
    "cwd": "/",
    "noNewPrivileges": true
  },
  "root": {"path": "rootfs", "readonly": true}
}
`

// fill lays out the guest's root and notes every input in the manifest.
func fill(o Options, modules []module, m *Manifest) (*tree, error) {
	t := newTree()
	for _, d := range []string{"/dev", "/proc", "/sys", "/run", "/mnt", "/root", "/var", "/lib/modules"} {
		t.dir(d, 0o755, false)
	}
	t.dir("/tmp", 0o777, true)
	t.add("/dev/console", entry{kind: kindCharDev, perm: 0o600, major: 5, minor: 1})

	order := ""
	for _, mod := range modules {
		t.file("/"+mod.Path, mod.Data, 0o644)
		if !mod.spare {
			order += strings.Join(append([]string{"/" + mod.Path}, devicesOf(mod)...), " ") + "\n"
		}
		m.input("module /"+mod.Path, mod.Data)
	}
	for path, text := range dependencyFiles(modules) {
		t.file("/"+path, []byte(text), 0o644)
	}
	t.file(modulesPath, []byte(order), 0o644)
	t.file(pauseBundle+"/config.json", []byte(pauseConfig), 0o644)
	t.file(policyPath, defaultPolicy, 0o644)

	for _, p := range []struct {
		name, source, target string
		program              bool
	}{
		{"agent", o.Agent, "/init", true},
		{"pause", o.Pause, pauseBundle + "/rootfs/pause", true},
		{"config", o.Config, configPath, false},
		{"policy", o.Policy, policyPath, false},
		{"certificates", o.CABundle, certsPath, false},
	} {
		if err := place(t, m, p.name, p.source, p.target, p.program); err != nil {
			return nil, err
		}
	}
	for _, a := range o.Add {
		if !strings.HasPrefix(a.Target, "/") {
			return nil, fmt.Errorf("add %s: target %q is not absolute: %w", a.Source, a.Target, errdefs.ErrInvalidArgument)
		}
		if err := t.copy(a.Source, a.Target); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// place puts one input at its target. Programs are mandatory, files are not.
func place(t *tree, m *Manifest, name, source, target string, program bool) error {
	if source == "" && !program {
		return nil
	}
	data, err := os.ReadFile(source)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	m.input(name, data)
	if !program {
		t.file(target, data, 0o644)
		return nil
	}
	if err := checkStatic(data); err != nil {
		return fmt.Errorf("take %s as %s: %w", source, name, err)
	}
	t.file(target, data, 0o755)
	return nil
}

// checkStatic refuses a program that asks for a dynamic linker: the image has
// none, and the kernel would only say "No working init found".
func checkStatic(program []byte) error {
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return fmt.Errorf("parse ELF: %w", err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("program is dynamically linked: %w", errdefs.ErrInvalidArgument)
		}
	}
	return nil
}
