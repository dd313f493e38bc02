package device

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// recording is what /sys of a q35 guest with an emulated IOMMU shows of a
// network card in slot 5, one behind a port in slot 2, and of VFIO group 3, and
// what an IBM Z guest shows of its crypto adapter.
func recording(t *testing.T) *Finder {
	t.Helper()
	f := &Finder{Sys: t.TempDir(), Dev: t.TempDir(), Timeout: 1}
	link := func(name, target string) {
		t.Helper()
		path := filepath.Join(f.Sys, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
	}
	const card, behind = "devices/pci0000:00/0000:00:05.0", "devices/pci0000:00/0000:00:02.0/0000:01:00.0"
	for path, driver := range map[string]string{card: "virtio-pci", behind: "vfio-pci"} {
		link("bus/pci/devices/"+filepath.Base(path), "../../../"+path)
		link(path+"/driver", "../../../bus/pci/drivers/"+driver)
		link(path+"/iommu_group", "../../../kernel/iommu_groups/3")
	}
	link("bus/pci/devices/0000:00:02.0", "../../../devices/pci0000:00/0000:00:02.0")
	link("class/vfio/3", "../../devices/virtual/vfio/3")
	link("bus/ap/devices/card05", "../../../devices/ap/card05")
	link("bus/ap/devices/05.001f", "../../../devices/ap/card05/05.001f")
	for _, name := range []string{card + "/driver_override", behind + "/driver_override", "bus/pci/drivers/virtio-pci/unbind",
		"bus/pci/drivers_probe", "bus/ap/scans", "firmware/uv/prot_virt_guest"} {
		path := filepath.Join(f.Sys, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func (f *Finder) content(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(f.Sys, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func pci(t *testing.T, path string) PCIFunction {
	t.Helper()
	p, err := ParsePCIPath(path)
	if err != nil {
		t.Fatal(err)
	}
	return PCIFunction{p}
}

func queue(t *testing.T, s string) APQueue {
	t.Helper()
	q, err := ParseAPQueue(s)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func TestFindWithoutNode(t *testing.T) {
	f := recording(t)
	for _, tt := range []struct {
		match Matcher
		want  string
	}{
		{pci(t, "05"), "0000:00:05.0"},
		{pci(t, "02/00"), "0000:01:00.0"},
		{pci(t, "02"), "0000:00:02.0"},
		{VFIOGroup(3), filepath.Join(f.Dev, "vfio/3")},
		{queue(t, "05.001f"), "05.001f"},
	} {
		t.Run(tt.match.String(), func(t *testing.T) {
			if got, err := f.Wait(t.Context(), tt.match); err != nil || got != tt.want {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
	for _, m := range []Matcher{pci(t, "05.1"), pci(t, "02/01"), VFIOGroup(33), queue(t, "05.0020"), queue(t, "06.001f")} {
		if got, err := f.Wait(t.Context(), m); !errdefs.IsUnavailable(err) {
			t.Errorf("%s: got %q, %v", m, got, err)
		}
	}
	// The error tells what there is of the kind, and nothing else.
	_, err := f.Wait(t.Context(), pci(t, "07"))
	if err == nil || !strings.Contains(err.Error(), "0000:00:05.0") || strings.Contains(err.Error(), "05.001f") {
		t.Errorf("got %v", err)
	}
}

func TestEventsWithoutNode(t *testing.T) {
	for _, tt := range []struct {
		text  string
		match Matcher
		want  string
	}{
		{"add@/devices/pci0000:00/0000:00:05.0\x00ACTION=add\x00DEVPATH=/devices/pci0000:00/0000:00:05.0\x00SUBSYSTEM=pci\x00", pci(t, "05"), "0000:00:05.0"},
		{"add@/devices/virtual/vfio/3\x00ACTION=add\x00DEVPATH=/devices/virtual/vfio/3\x00SUBSYSTEM=vfio\x00DEVNAME=vfio/3\x00", VFIOGroup(3), "vfio/3"},
		{"add@/devices/ap/card05/05.001f\x00ACTION=add\x00DEVPATH=/devices/ap/card05/05.001f\x00SUBSYSTEM=ap\x00", queue(t, "05.001f"), "05.001f"},
	} {
		e, ok := parseUevent([]byte(tt.text))
		name, matches := tt.match.Match(e)
		if !ok || !matches || name != tt.want {
			t.Errorf("%s: event %+v %v, name %q %v", tt.match, e, ok, name, matches)
		}
	}
}

func TestBindVFIO(t *testing.T) {
	f := recording(t)
	if group, err := f.BindVFIO("0000:01:00.0"); group != 3 || err != nil {
		t.Errorf("a function that is there: group %d, %v", group, err)
	}
	if got := f.content(t, "bus/pci/drivers_probe"); got != "" {
		t.Errorf("it was probed again: %q", got)
	}
	// A recording obeys nobody, so the last look finds the old driver.
	if _, err := f.BindVFIO("0000:00:05.0"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("without the driver: %v", err)
	}
	for name, want := range map[string]string{
		"devices/pci0000:00/0000:00:05.0/driver_override": "vfio-pci",
		"bus/pci/drivers/virtio-pci/unbind":               "0000:00:05.0",
		"bus/pci/drivers_probe":                           "0000:00:05.0",
	} {
		if got := f.content(t, name); got != want {
			t.Errorf("%s got %q, want %q", name, got, want)
		}
	}
	if _, err := f.BindVFIO("0000:00:02.0"); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "IOMMU") {
		t.Errorf("without a group: %v", err)
	}
}

func TestAP(t *testing.T) {
	f := recording(t)
	if err := f.RescanAP(); err != nil || f.content(t, "bus/ap/scans") != "1" {
		t.Errorf("rescan: %v, wrote %q", err, f.content(t, "bus/ap/scans"))
	}
	if f.SecureExecution() {
		t.Error("an empty file means Secure Execution")
	}
	if err := os.WriteFile(filepath.Join(f.Sys, "firmware/uv/prot_virt_guest"), []byte("1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if !f.SecureExecution() {
		t.Error("Secure Execution is overlooked")
	}
	if err := (&Finder{Sys: t.TempDir()}).RescanAP(); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("without a bus: %v", err)
	}
	for _, bad := range []string{"", "05", "5.001f", "05.1f", "05.001f.0", "05.0001f", "0x.001f", "+5.001f", "05.+01f"} {
		if q, err := ParseAPQueue(bad); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: got %v, %v", bad, q, err)
		}
	}
}

func TestNodes(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("making device nodes needs root")
	}
	f := &Finder{Dev: t.TempDir()}
	dir := filepath.Join(f.Dev, "infiniband")
	os.Mkdir(dir, 0o755)
	os.WriteFile(filepath.Join(dir, "file"), nil, 0o600)
	os.Symlink("/dev/null", filepath.Join(dir, "link"))
	for name, mode := range map[string]uint32{"uverbs0": unix.S_IFCHR | 0o640, "block": unix.S_IFBLK | 0o600} {
		if err := unix.Mknod(filepath.Join(dir, name), mode, int(unix.Mkdev(231, 192))); err != nil {
			t.Fatal(err)
		}
	}
	got, err := f.CharNodes("infiniband")
	if err != nil || len(got) != 1 || got[0] != (Node{Path: "/dev/infiniband/uverbs0", Major: 231, Minor: 192, Mode: got[0].Mode}) {
		t.Errorf("got %+v, %v", got, err)
	}
	if n, err := f.ReadNode("infiniband/block"); err != nil || !n.Block {
		t.Errorf("got %+v, %v", n, err)
	}
	if _, err := f.ReadNode("infiniband/link"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a symlink: %v", err)
	}
	if none, err := f.CharNodes("none"); none != nil || err != nil {
		t.Errorf("no directory: %v, %v", none, err)
	}
	if _, err := f.CharNodes("infiniband/file"); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("a file: %v", err)
	}
}

func FuzzAPQueue(f *testing.F) {
	f.Add("05.001f")
	f.Add("ff.ffff")
	f.Add("0.0")
	f.Fuzz(func(t *testing.T, s string) {
		if q, err := ParseAPQueue(s); err == nil && q.String() != strings.ToLower(s) {
			t.Errorf("%q became %s", s, q)
		}
	})
}
