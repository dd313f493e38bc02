package guest

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// modulesOf makes an image whose kernel is 9.9, and notes what is loaded.
func modulesOf(t *testing.T, files map[string]string) (m Modules, loaded *[]string) {
	t.Helper()
	m = Modules{Root: t.TempDir(), Release: "9.9"}
	for name, content := range files {
		path := filepath.Join(m.Root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	loaded = new([]string)
	m.init = func(path, params string) error {
		name := strings.TrimPrefix(path, filepath.Join(m.Root, "lib/modules/9.9")+"/")
		switch name {
		case "kernel/there.ko":
			return unix.EEXIST
		case "kernel/broken.ko":
			return unix.ENOEXEC
		}
		*loaded = append(*loaded, strings.TrimSpace(name+" "+params))
		return nil
	}
	return m, loaded
}

const dep = `kernel/a/top-one.ko.xz: kernel/a/middle.ko kernel/there.ko kernel/a/base.ko
kernel/a/base.ko:
kernel/bad.ko: kernel/broken.ko
`

func TestModulesInOrder(t *testing.T) {
	for _, tt := range []struct {
		name, module string
		params       []string
		want         []string
	}{
		{"dependencies first", "top_one", []string{"a=1", "b.c=x,y"},
			[]string{"kernel/a/base.ko", "kernel/a/middle.ko", "kernel/a/top-one.ko.xz a=1 b.c=x,y"}},
		{"either spelling", "top-one", nil, []string{"kernel/a/base.ko", "kernel/a/middle.ko", "kernel/a/top-one.ko.xz"}},
		{"alone", "base", []string{"quiet"}, []string{"kernel/a/base.ko quiet"}},
		{"there already", "built_in", []string{"a=1"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, loaded := modulesOf(t, map[string]string{"lib/modules/9.9/modules.dep": dep, "sys/module/built_in/x": ""})
			if err := m.Load(t.Context(), tt.module, tt.params); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(*loaded, tt.want) {
				t.Errorf("loaded %q, want %q", *loaded, tt.want)
			}
		})
	}
}

func TestModulesRefused(t *testing.T) {
	m, loaded := modulesOf(t, map[string]string{"lib/modules/9.9/modules.dep": dep})
	for _, tt := range []struct {
		name, module string
		params       []string
		class        error
	}{
		{"no name", "", nil, errdefs.ErrInvalidArgument},
		{"option", "-r", nil, errdefs.ErrInvalidArgument},
		{"path", "../base", nil, errdefs.ErrInvalidArgument},
		{"dot", "base.ko", nil, errdefs.ErrInvalidArgument},
		{"long", strings.Repeat("a", 65), nil, errdefs.ErrInvalidArgument},
		{"option as parameter", "base", []string{"--remove"}, errdefs.ErrInvalidArgument},
		{"two words", "base", []string{"a=1 b=2"}, errdefs.ErrInvalidArgument},
		{"quote", "base", []string{`a="x`}, errdefs.ErrInvalidArgument},
		{"no key", "base", []string{"=1"}, errdefs.ErrInvalidArgument},
		{"empty parameter", "base", []string{""}, errdefs.ErrInvalidArgument},
		{"too much", "base", []string{"a=" + strings.Repeat("x", maxModuleParams)}, errdefs.ErrInvalidArgument},
		{"not in the image", "nbd", nil, errdefs.ErrNotFound},
		{"the kernel refuses a dependency", "bad", nil, unix.ENOEXEC},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := m.Load(t.Context(), tt.module, tt.params); !errors.Is(err, tt.class) {
				t.Errorf("got %v, want %v", err, tt.class)
			}
		})
	}
	if len(*loaded) > 0 {
		t.Errorf("loaded %q", *loaded)
	}
	empty, _ := modulesOf(t, nil)
	if err := empty.Load(t.Context(), "base", nil); !errdefs.IsNotFound(err) {
		t.Errorf("image without modules: %v", err)
	}
}

func TestModprobeOfTheImage(t *testing.T) {
	m, loaded := modulesOf(t, map[string]string{
		"sbin/modprobe": "#!/bin/sh\necho \"$@\" > ${0%/*}/args\ntest \"$3\" != missing || { echo not found >&2; exit 1; }\n",
	})
	if err := m.Load(t.Context(), "vfio-pci", []string{"ids=1:2"}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(m.Root, "sbin/args"))
	if err != nil || string(got) != "-v -- vfio-pci ids=1:2\n" || len(*loaded) > 0 {
		t.Errorf("modprobe got %q, %v; loaded besides %q", got, err, *loaded)
	}
	if err := m.Load(t.Context(), "missing", nil); err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("modprobe fails: %v", err)
	}
}
