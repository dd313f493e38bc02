package devices

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/mount/device"
)

// machine is a guest from a recording of /sys: functions in slots 5 and 6 that
// form IOMMU group 3 and have vfio-pci, one in slot 7 of group 4, one in slot 8
// with the guest's own driver, and an AP queue. Its nodes are real.
func machine(t *testing.T) *device.Finder {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("making device nodes needs root")
	}
	f := &device.Finder{Sys: t.TempDir(), Dev: t.TempDir(), Timeout: 1}
	for name, target := range map[string]string{
		"bus/pci/devices/0000:00:05.0":                "../../../devices/pci0000:00/0000:00:05.0",
		"bus/pci/devices/0000:00:06.0":                "../../../devices/pci0000:00/0000:00:06.0",
		"bus/pci/devices/0000:00:07.0":                "../../../devices/pci0000:00/0000:00:07.0",
		"bus/pci/devices/0000:00:08.0":                "../../../devices/pci0000:00/0000:00:08.0",
		"devices/pci0000:00/0000:00:05.0/driver":      "../../../bus/pci/drivers/vfio-pci",
		"devices/pci0000:00/0000:00:06.0/driver":      "../../../bus/pci/drivers/vfio-pci",
		"devices/pci0000:00/0000:00:07.0/driver":      "../../../bus/pci/drivers/vfio-pci",
		"devices/pci0000:00/0000:00:08.0/driver":      "../../../bus/pci/drivers/mlx5_core",
		"devices/pci0000:00/0000:00:05.0/iommu_group": "../../../kernel/iommu_groups/3",
		"devices/pci0000:00/0000:00:06.0/iommu_group": "../../../kernel/iommu_groups/3",
		"devices/pci0000:00/0000:00:07.0/iommu_group": "../../../kernel/iommu_groups/4",
		"class/vfio/3":           "../../devices/virtual/vfio/3",
		"class/vfio/4":           "../../devices/virtual/vfio/4",
		"bus/ap/devices/05.001f": "../../../devices/ap/card05/05.001f",
	} {
		path := filepath.Join(f.Sys, name)
		os.MkdirAll(filepath.Dir(path), 0o755)
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"bus/ap/scans", "devices/pci0000:00/0000:00:05.0/driver_override",
		"devices/pci0000:00/0000:00:06.0/driver_override", "devices/pci0000:00/0000:00:07.0/driver_override"} {
		if err := os.WriteFile(filepath.Join(f.Sys, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, number := range map[string]uint64{
		"vfio/3": unix.Mkdev(243, 3), "vfio/4": unix.Mkdev(243, 4), "z90crypt": unix.Mkdev(10, 60),
	} {
		path := filepath.Join(f.Dev, name)
		os.MkdirAll(filepath.Dir(path), 0o755)
		if err := unix.Mknod(path, unix.S_IFCHR|0o600, int(number)); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// vfioSpec is what a shim sends for a container with two groups of the host and
// an adapter.
const vfioSpec = `{"linux":{
	"devices":[
		{"path":"/dev/vfio/vfio","type":"c","major":10,"minor":196},
		{"path":"/dev/vfio/12","type":"c","major":511,"minor":0},
		{"path":"/dev/vfio/13","type":"c","major":511,"minor":1}],
	"resources":{"devices":[{"allow":true,"type":"c","major":511,"minor":0,"access":"rw"}]}}}`

var (
	pair   = Device{ID: "12", Type: "vfio-pci", ContainerPath: "/dev/vfio/12", Options: []string{"0000:c8:01.2=05", "0000:c8:01.3=06"}}
	single = Device{ID: "13", Type: "vfio-pci", ContainerPath: "/dev/vfio/13", Options: []string{"0000:c8:02.0=07", "0000:c8:02.1="}}
)

func TestVFIO(t *testing.T) {
	s := parse(t, vfioSpec)
	pci, err := Apply(t.Context(), s, []Device{pair, single}, machine(t))
	if err != nil {
		t.Fatal(err)
	}
	want := Addresses{"0000:c8:01.2": "0000:00:05.0", "0000:c8:01.3": "0000:00:06.0", "0000:c8:02.0": "0000:00:07.0"}
	if !reflect.DeepEqual(pci, want) {
		t.Errorf("addresses %v, want %v", pci, want)
	}
	got, _ := json.Marshal(s.Linux)
	const wantSpec = `{"resources":{"devices":[` +
		`{"allow":true,"type":"c","major":243,"minor":3,"access":"rw"},` +
		`{"allow":true,"type":"c","major":243,"minor":3,"access":"rw"},` +
		`{"allow":true,"type":"c","major":243,"minor":4,"access":"rwm"},` +
		`{"allow":true,"type":"c","major":10,"minor":196,"access":"rwm"}]},` +
		`"devices":[{"path":"/dev/vfio/vfio","type":"c","major":10,"minor":196},` +
		`{"path":"/dev/vfio/3","type":"c","major":243,"minor":3},{"path":"/dev/vfio/4","type":"c","major":243,"minor":4}]}`
	if string(got) != wantSpec {
		t.Errorf("spec %s\nwant %s", got, wantSpec)
	}
}

// A function that stays with the guest's driver changes no node; its addresses
// are all that the container needs, and the nodes of an InfiniBand driver.
func TestVFIOGuestKernel(t *testing.T) {
	f := machine(t)
	dir := filepath.Join(f.Dev, "infiniband")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, minor := range map[string]uint32{"rdma_cm": 124, "uverbs0": 192} {
		if err := unix.Mknod(filepath.Join(dir, name), unix.S_IFCHR|0o666, int(unix.Mkdev(231, minor))); err != nil {
			t.Fatal(err)
		}
	}
	s := parse(t, `{"linux":{"devices":[{"path":"/dev/infiniband/rdma_cm","type":"c","major":231,"minor":124}]}}`)
	d := Device{ID: "12", Type: "vfio-pci-gk", ContainerPath: "/dev/vfio/12", Options: []string{"0000:c8:01.2=08"}}
	pci, err := Apply(t.Context(), s, []Device{d}, f)
	if err != nil || pci["0000:c8:01.2"] != "0000:00:08.0" {
		t.Fatalf("addresses %v, %v", pci, err)
	}
	if ds := s.Linux.Devices; len(ds) != 2 || ds[1].Path != "/dev/infiniband/uverbs0" || ds[1].Minor != 192 || *ds[1].FileMode&0o777 == 0 {
		t.Errorf("devices %+v", ds)
	}
	if rules := s.Linux.Resources.Devices; len(rules) != 1 || *rules[0].Minor != 192 || rules[0].Access != "rwm" {
		t.Errorf("rules %+v", rules)
	}
	s = parse(t, vfioSpec)
	d.Options[0] = "0000:c8:01.2="
	if pci, err := Apply(t.Context(), s, []Device{d}, f); err != nil || len(pci) != 0 {
		t.Errorf("without a place: %v, %v", pci, err)
	}
}

func TestCrypto(t *testing.T) {
	f := machine(t)
	for _, kind := range []string{"vfio-ap", "vfio-ap-cold"} {
		d := Device{ID: "x", Type: kind, ContainerPath: "/dev/vfio/12", Options: []string{"05.001f"}}
		s := parse(t, vfioSpec)
		if _, err := Apply(t.Context(), s, []Device{d}, f); err != nil {
			t.Fatal(err)
		}
		if got := s.Linux.Devices[1]; got.Path != "/dev/z90crypt" || got.Major != 10 || got.Minor != 60 {
			t.Errorf("%s: device %+v", kind, got)
		}
	}
	protected := filepath.Join(f.Sys, "firmware/uv/prot_virt_guest")
	os.MkdirAll(filepath.Dir(protected), 0o755)
	os.WriteFile(protected, []byte("1\n"), 0o600)
	d := Device{ID: "x", Type: "vfio-ap-cold", ContainerPath: "/dev/vfio/12", Options: []string{"05.001f"}}
	if _, err := Apply(t.Context(), parse(t, vfioSpec), []Device{d}, f); !errdefs.IsNotImplemented(err) {
		t.Errorf("Secure Execution: %v", err)
	}
}

func TestVFIORefuses(t *testing.T) {
	f := machine(t)
	with := func(d Device, options ...string) []Device { d.Options = options; return []Device{d} }
	ap := Device{ID: "x", Type: "vfio-ap", ContainerPath: "/dev/vfio/12"}
	for _, tt := range []struct {
		name  string
		ds    []Device
		class func(error) bool
	}{
		{"no function", with(pair), errdefs.IsInvalidArgument},
		{"no place", with(pair, "0000:c8:01.2="), errdefs.IsInvalidArgument},
		{"no equals sign", with(pair, "0000:c8:01.2"), errdefs.IsInvalidArgument},
		{"short address", with(pair, "c8:01.2=05"), errdefs.IsInvalidArgument},
		{"address climbs", with(pair, "../../../x/y=05"), errdefs.IsInvalidArgument},
		{"function too large", with(pair, "0000:c8:01.8=05"), errdefs.IsInvalidArgument},
		{"bad path", with(pair, "0000:c8:01.2=05=06"), errdefs.IsInvalidArgument},
		{"two groups", with(pair, "0000:c8:01.2=05", "0000:c8:01.3=07"), errdefs.IsInvalidArgument},
		{"no IOMMU", with(pair, "0000:c8:01.2=08"), errdefs.IsFailedPrecondition},
		{"not plugged in", with(pair, "0000:c8:01.2=1f"), errdefs.IsUnavailable},
		{"not in the spec", []Device{{ID: "9", Type: "vfio-pci", ContainerPath: "/dev/vfio/9", Options: pair.Options}}, errdefs.IsInvalidArgument},
		{"no queue", []Device{ap}, errdefs.IsInvalidArgument},
		{"bad queue", with(ap, "5"), errdefs.IsInvalidArgument},
		{"unknown queue", with(ap, "05.0020"), errdefs.IsUnavailable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := parse(t, vfioSpec)
			if _, err := Apply(t.Context(), s, tt.ds, f); !tt.class(err) {
				t.Errorf("got %v", err)
			}
			if !reflect.DeepEqual(s, parse(t, vfioSpec)) {
				t.Error("the spec changed")
			}
		})
	}
}

func TestTranslate(t *testing.T) {
	a := Addresses{"0000:c8:01.2": "0000:00:05.0", "0000:c8:01.3": "0000:00:06.0", "0000:00:05.0": "0000:00:09.0"}
	in := []string{
		"PCIDEVICE_A=0000:c8:01.2,0000:c8:01.3",
		`PCIDEVICE_A_INFO={"0000:c8:01.2":{"x":"0000:c8:01.3"}}`,
		"PCIDEVICE_B=0000:c8:01.2,0000:c8:09.9",
		`PCIDEVICE_B_INFO={"0000:c8:01.2":{}}`,
		"PCIDEVICE_CHAIN=0000:00:05.0,0000:c8:01.2",
		"PCIDEVICE_C=eth0", "PCIDEVICE_BARE", "OTHER=0000:c8:01.2", "", "=x",
	}
	want := append([]string{
		"PCIDEVICE_A=0000:00:05.0,0000:00:06.0",
		`PCIDEVICE_A_INFO={"0000:00:05.0":{"x":"0000:00:06.0"}}`,
		in[2], in[3],
		"PCIDEVICE_CHAIN=0000:00:09.0,0000:00:05.0",
	}, in[5:]...)
	before := strings.Join(in, "\n")
	if got := a.Translate(in); !reflect.DeepEqual(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	if strings.Join(in, "\n") != before {
		t.Error("the argument changed")
	}
	if got := Addresses(nil).Translate(in); &got[0] != &in[0] {
		t.Error("without addresses the list was copied")
	}
}

func FuzzOption(f *testing.F) {
	f.Add("0000:c8:01.2=02/03")
	f.Add("0000:c8:01.2=")
	f.Add("=")
	f.Fuzz(func(t *testing.T, o string) {
		host, place, err := parseOption(o)
		if err == nil && (len(host) != 12 || host+"="+place != o) {
			t.Errorf("%q became %q and %q", o, host, place)
		}
		Addresses{"0000:c8:01.2": "x"}.Translate([]string{"PCIDEVICE_" + o, o})
	})
}
