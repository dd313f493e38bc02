package boot

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// newModules is a list, and devices by their modaliases; what would be loaded
// goes to the returned slice.
func newModules(t *testing.T, list string, aliases ...string) (*Modules, *[]string) {
	t.Helper()
	m := &Modules{Root: t.TempDir(), File: ModulesFile}
	write(t, filepath.Join(m.Root, ModulesFile), list)
	for i, alias := range aliases {
		write(t, filepath.Join(m.Root, "sys/bus/virtio/devices", string(rune('a'+i)), "modalias"), alias+"\n")
	}
	var got []string
	m.init = func(path string) error {
		got = append(got, path)
		switch path {
		case "/there.ko":
			return unix.EEXIST
		case "/snp.ko":
			return unix.ENODEV
		case "/ptp_kvm.ko":
			return unix.EOPNOTSUPP
		case "/bad.ko":
			return unix.ENOEXEC
		}
		return nil
	}
	return m, &got
}

const moduleList = `# comment
/a.ko

 /there.ko
/snp.ko
/ptp_kvm.ko
/lib.ko on virtio:d00000001v* virtio:d00000008v*
/net.ko on virtio:d00000001v*
/scsi.ko on virtio:d00000008v*
/tdx.ko on cpu:type:x86,ven*fam*mod*:feature:*0116*
/b.ko
`

func TestModulesForWhatIsThere(t *testing.T) {
	m, got := newModules(t, moduleList, "virtio:d00000001v00001AF4", "virtio:d00000002v00001AF4")
	write(t, filepath.Join(m.Root, "sys/devices/system/cpu/modalias"), "cpu:type:x86,ven0002fam0006mod000F:feature:,0000,0001,0017\n")
	if err := m.LoadPresent(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := []string{"/a.ko", "/there.ko", "/snp.ko", "/ptp_kvm.ko", "/lib.ko", "/net.ko", "/b.ko"}; !slices.Equal(*got, want) {
		t.Errorf("loaded %q, want %q", *got, want)
	}
	*got = nil
	if err := m.LoadPresent(t.Context()); err != nil || len(*got) > 0 {
		t.Errorf("loaded again: %q, %v", *got, err)
	}
	m.Plugged(t.Context(), "pci:v00001AF4d00001041")
	m.Plugged(t.Context(), "virtio:d00000001v00001AF4")
	m.Plugged(t.Context(), "virtio:d00000008v00001AF4")
	m.Plugged(t.Context(), "virtio:d00000008v00001AF4")
	if want := []string{"/scsi.ko"}; !slices.Equal(*got, want) {
		t.Errorf("plugged in: loaded %q, want %q", *got, want)
	}
}

func TestModulesForTheProcessor(t *testing.T) {
	m, got := newModules(t, moduleList)
	write(t, filepath.Join(m.Root, "sys/devices/system/cpu/modalias"), "cpu:type:x86,ven0000fam0006mod008F:feature:,0000,0116,0117\n")
	if err := m.LoadPresent(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(*got, "/tdx.ko") {
		t.Errorf("loaded %q", *got)
	}
}

func TestModulesThatFail(t *testing.T) {
	m, got := newModules(t, "/bad.ko\n/a.ko\n")
	if err := m.LoadPresent(t.Context()); !errors.Is(err, unix.ENOEXEC) || !strings.Contains(err.Error(), "/bad.ko") || len(*got) != 1 {
		t.Errorf("%v, loaded %q", err, *got)
	}
	none := &Modules{Root: t.TempDir(), File: ModulesFile}
	if err := none.LoadPresent(t.Context()); err != nil {
		t.Errorf("no list: %v", err)
	}
	for list, want := range map[string]string{"/lib/none.ko\n": "no such file", "/a.ko of x\n": "line", "/a.ko on\n": "line"} {
		m := &Modules{Root: t.TempDir(), File: ModulesFile}
		write(t, filepath.Join(m.Root, ModulesFile), list)
		if err := m.LoadPresent(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", list, err)
		}
	}
	missing := &Modules{Root: t.TempDir(), File: ModulesFile}
	write(t, filepath.Join(missing.Root, ModulesFile), "/lib/none.ko\n")
	if err := missing.LoadPresent(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing module: %v", err)
	}
}
