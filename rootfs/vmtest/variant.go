package vmtest

import (
	"cmp"
	"path/filepath"
	"testing"

	"github.com/coffer-cc/coffer/rootfs/image"
	"github.com/coffer-cc/coffer/rootfs/vm"
)

// A Variant is a guest image that holds more than the tree's own.
type Variant struct {
	Modules     []string // kernel modules to load at boot, after the usual ones
	ModuleFiles []string // those of tests, after all others
	Config      string   // in place of the usual agent.toml
	Add         []image.Addition
	Disk        bool // the machine's root is a disk and no initrd
}

// Build makes the image and returns a machine that boots from it.
func (v Variant) Build(t testing.TB) vm.Config {
	t.Helper()
	b, err := prepare()
	if err != nil {
		t.Fatal(err)
	}
	o := b.options
	o.Modules = append(image.DefaultModules(), v.Modules...)
	o.ModuleFiles = v.ModuleFiles
	o.Config = cmp.Or(v.Config, o.Config)
	o.Add = v.Add
	o.Disk = v.Disk
	o.Out = t.TempDir()
	if _, err := b.store.Build(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	c := vm.Config{Kernel: filepath.Join(o.Out, "vmlinuz")}
	if v.Disk {
		c.Root = filepath.Join(o.Out, "disk.img")
	} else {
		c.Initrd = filepath.Join(o.Out, "initrd.img")
	}
	return c
}

// hostProgram is a program of this machine at the same path of the guest, with
// the libraries it is linked to.
func hostProgram(t testing.TB, name string) []image.Addition {
	t.Helper()
	add, err := image.Program(name)
	if err != nil {
		t.Fatal(err)
	}
	return add
}
