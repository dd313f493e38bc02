package image

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// ko compiles something with the fields of a module that depends on others.
func ko(t *testing.T, depends string, aliases ...string) string {
	t.Helper()
	for _, alias := range aliases {
		depends += `\0alias=` + alias
	}
	out := filepath.Join(t.TempDir(), "m.o")
	cmd := exec.Command("gcc", "-x", "c", "-c", "-", "-o", out)
	cmd.Stdin = strings.NewReader(fmt.Sprintf(
		`static const char i[] __attribute__((section(".modinfo"), used)) = "license=GPL\0depends=%s\0name=m";`, depends))
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("compile module: %v: %s", err, msg)
	}
	if msg, err := exec.Command("xz", out).CombinedOutput(); err != nil {
		t.Fatalf("compress module: %v: %s", err, msg)
	}
	data, err := os.ReadFile(out + ".xz")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// kernelStore serves a kernel package with modules d <- b,c <- a and a loop.
func kernelStore(t *testing.T) *Store {
	a := newArchive(t)
	a.add("linux", "1", map[string]string{
		"boot/vmlinuz-1":                      "kernel",
		"lib/modules/1/modules.builtin":       "kernel/fs/ext4/ext4.ko\n",
		"lib/modules/1/kernel/x/a.ko.xz":      ko(t, "b-2,c"),
		"lib/modules/1/kernel/x/b-2.ko.xz":    ko(t, "d"),
		"lib/modules/1/kernel/y/c.ko.xz":      ko(t, "d"),
		"lib/modules/1/kernel/y/d.ko.xz":      ko(t, ""),
		"lib/modules/1/kernel/z/loop1.ko.xz":  ko(t, "loop2"),
		"lib/modules/1/kernel/z/loop2.ko.xz":  ko(t, "loop1"),
		"lib/modules/1/kernel/z/orphan.ko.xz": ko(t, "missing"),
	})
	s, _ := a.store(lockOf(kernelUse, "linux", "1", a.packageSum["linux_1_amd64.deb"], "linux 1"))
	return s
}

func program(t *testing.T) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "program")
	cmd := exec.Command("gcc", "-static", "-x", "c", "-", "-o", out)
	cmd.Stdin = strings.NewReader("int main(void) { return 0; }")
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("compile program: %v: %s", err, msg)
	}
	return out
}

func TestLoadOrder(t *testing.T) {
	s := kernelStore(t)
	deb, err := s.fetch(t.Context(), kernelUse)
	if err != nil {
		t.Fatal(err)
	}
	k, err := readKernel(t.Context(), deb.Path)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name   string
		wanted []string
		want   []string
		err    error
	}{
		{name: "dependencies first", wanted: []string{"a"}, want: []string{"y/d", "x/b-2", "y/c", "x/a"}},
		{name: "each once", wanted: []string{"c", "b_2", "c"}, want: []string{"y/d", "y/c", "x/b-2"}},
		{name: "builtin needs no file", wanted: []string{"ext4"}},
		{name: "unknown", wanted: []string{"nosuch"}, err: errdefs.ErrNotFound},
		{name: "unknown dependency", wanted: []string{"orphan"}, err: errdefs.ErrNotFound},
		{name: "loop", wanted: []string{"loop1"}, err: errdefs.ErrInvalidArgument},
	} {
		t.Run(tc.name, func(t *testing.T) {
			modules, err := k.load(t.Context(), tc.wanted, nil)
			if !errors.Is(err, tc.err) {
				t.Fatalf("error %v, want %v", err, tc.err)
			}
			var got []string
			for _, m := range modules {
				got = append(got, strings.TrimSuffix(strings.TrimPrefix(m.Path, "lib/modules/1/kernel/"), ".ko"))
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

// Drivers are for their devices, and so is what only drivers need.
func TestConditions(t *testing.T) {
	needs := map[string][]string{"net": {"failover", "lib"}, "scsi": {"lib"}, "fs": {"crc"}, "blk": {"crc"}}
	devices := map[string][]string{"net": {"virtio:1"}, "scsi": {"virtio:8", "virtio:1"}, "blk": {"virtio:2"}, "failover": {"virtio:9"}}
	got := conditions([]string{"net", "scsi", "fs", "blk"}, needs, devices)
	for name, want := range map[string][]string{
		"net": {"virtio:1"}, "failover": {"virtio:1"}, "scsi": {"virtio:1", "virtio:8"}, "lib": {"virtio:1", "virtio:8"},
		"fs": nil, "crc": nil, "blk": {"virtio:2"},
	} {
		if !slices.Equal(got[name], want) {
			t.Errorf("%s: %v, want %v", name, got[name], want)
		}
	}
}

func TestModinfo(t *testing.T) {
	raw, err := unxz(t.Context(), []byte(ko(t, "b-2,c", "virtio:d00000001v*", "fs-x", "cpu:type:x86,ven*feature:*0116*", "net-pf-40")))
	if err != nil {
		t.Fatal(err)
	}
	info, err := modinfo(raw)
	if err != nil || !slices.Equal(info.depends, []string{"b-2", "c"}) || !slices.Equal(info.devices, []string{"virtio:d00000001v*", "cpu:type:x86,ven*feature:*0116*"}) {
		t.Errorf("%+v, %v", info, err)
	}
}

func TestBuildIsReproducible(t *testing.T) {
	s, agent := kernelStore(t), program(t)
	extra := t.TempDir()
	writeTree(t, extra, map[string]string{"z/file": "1", "a": "2"})
	for _, compression := range []string{"zstd", "gzip", "none"} {
		t.Run(compression, func(t *testing.T) {
			o := Options{Agent: agent, Pause: agent, Modules: []string{"a"}, Spare: []string{}, Compression: compression,
				Add: []Addition{{extra, "/opt/extra"}}}
			var outputs [2][]byte
			for i := range outputs {
				o.Out = t.TempDir()
				// Neither times nor modes of the inputs may show.
				if err := os.Chmod(filepath.Join(extra, "a"), []os.FileMode{0o600, 0o664}[i]); err != nil {
					t.Fatal(err)
				}
				if _, err := s.Build(t.Context(), o); err != nil {
					t.Fatal(err)
				}
				for _, name := range []string{"vmlinuz", "initrd.img", "manifest.json"} {
					data, err := os.ReadFile(filepath.Join(o.Out, name))
					if err != nil {
						t.Fatal(err)
					}
					outputs[i] = append(outputs[i], data...)
				}
			}
			if !bytes.Equal(outputs[0], outputs[1]) {
				t.Error("two builds of the same inputs differ")
			}
		})
	}
}

func TestBuildLayout(t *testing.T) {
	s, agent := kernelStore(t), program(t)
	policy := filepath.Join(t.TempDir(), "p.rego")
	if err := os.WriteFile(policy, []byte("package agent_policy"), 0o600); err != nil {
		t.Fatal(err)
	}
	added, err := unxz(t.Context(), []byte(ko(t, "b-2")))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "own.ko")
	if err := os.WriteFile(file, added, 0o600); err != nil {
		t.Fatal(err)
	}
	o := Options{Agent: agent, Pause: agent, Policy: policy, Modules: []string{"c"}, ModuleFiles: []string{file}, Spare: []string{}, Compression: "none", Out: t.TempDir()}
	if _, err := s.Build(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(o.Out, "initrd.img"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	files := readCPIO(t, f)
	for path, want := range map[string]string{
		"init":                              "100755",
		"pause_bundle/rootfs/pause":         "100755",
		"pause_bundle/config.json":          "100644",
		"etc/kata-opa/default-policy.rego":  "100644 package agent_policy",
		"etc/coffer/modules":                "100644 /lib/modules/1/kernel/y/d.ko\n/lib/modules/1/kernel/y/c.ko\n/lib/modules/1/kernel/x/b-2.ko\n/lib/modules/1/updates/own.ko\n",
		"lib/modules/1/kernel/y/d.ko":       "100644",
		"lib/modules/1/updates/own.ko":      "100644",
		"lib/modules/1/kernel/x/a.ko":       "",
		"etc/coffer/agent.toml":             "",
		"etc/ssl/certs/ca-certificates.crt": "",
		"dev/console":                       "20600",
		"tmp":                               "41777",
		"proc":                              "40755",
	} {
		if got := files[path]; got != want && !(want != "" && !strings.Contains(want, " ") && strings.HasPrefix(got, want+" ")) {
			t.Errorf("%s is %.60q, want %q", path, got, want)
		}
	}
}

func TestBuildRefuses(t *testing.T) {
	s, agent := kernelStore(t), program(t)
	notProgram := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(notProgram, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		o    Options
		want string
	}{
		{"no agent", Options{Pause: agent}, "read agent"},
		{"a script", Options{Agent: notProgram, Pause: agent}, "as agent: parse ELF"},
		{"a dynamic program", Options{Agent: "/usr/bin/dpkg-deb", Pause: agent}, "program is dynamically linked"},
		{"a relative target", Options{Agent: agent, Pause: agent, Add: []Addition{{agent, "x"}}}, "is not absolute"},
		{"an unknown compression", Options{Agent: agent, Pause: agent, Compression: "rar"}, `compression "rar"`},
		{"a missing policy", Options{Agent: agent, Pause: agent, Policy: "/nonexistent"}, "read policy"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.o.Out, tc.o.Modules = t.TempDir(), []string{"d"}
			tc.o.Spare = []string{}
			_, err := s.Build(t.Context(), tc.o)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
			if left, _ := os.ReadDir(tc.o.Out); len(left) > 0 {
				t.Errorf("left %v behind", left)
			}
		})
	}
}
