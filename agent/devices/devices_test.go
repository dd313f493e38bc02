package devices

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/mount/device"
)

// guest is a machine with a disk of each kind, built from files: the two virtio
// disks on PCI are behind a bridge and not.
func guest(t *testing.T) *device.Finder {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("making device nodes needs root")
	}
	f := &device.Finder{Sys: t.TempDir(), Dev: t.TempDir(), Timeout: 1}
	class := filepath.Join(f.Sys, "class/block")
	if err := os.MkdirAll(class, 0o755); err != nil {
		t.Fatal(err)
	}
	for i, devPath := range []string{
		"/devices/pci0000:00/0000:00:0b.0/virtio5/block/vda",
		"/devices/pci0000:00/0000:00:02.0/0000:01:03.0/virtio7/block/vdb",
		"/devices/platform/LNRO0005:01/virtio3/block/vdc",
		"/devices/pci0000:00/0000:00:03.0/virtio1/host0/target0:0:1/0:0:1:2/block/sda",
		"/devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region0/namespace0.0/block/pmem0",
		"/devices/css0/0.0.0003/0.0.0005/virtio9/block/vdd",
	} {
		name := filepath.Base(devPath)
		if err := os.Symlink("../.."+devPath, filepath.Join(class, name)); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mknod(filepath.Join(f.Dev, name), unix.S_IFBLK|0o600, int(unix.Mkdev(254, uint32(i*16)))); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

const spec = `{"linux":{
	"devices":[
		{"path":"/dev/null","type":"c","major":1,"minor":3},
		{"path":"/dev/xda","type":"b","major":7,"minor":0},
		{"path":"/dev/xdb","type":"b","major":8,"minor":16}],
	"resources":{"devices":[
		{"allow":false,"access":"rwm"},
		{"allow":true,"type":"b","major":7,"minor":0,"access":"rm"},
		{"allow":true,"type":"c","major":7,"minor":0,"access":"rwm"},
		{"allow":true,"type":"b","major":254,"minor":0,"access":"r"}]}}}`

func parse(t *testing.T, text string) *specs.Spec {
	t.Helper()
	s := new(specs.Spec)
	if err := json.Unmarshal([]byte(text), s); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestApply(t *testing.T) {
	s := parse(t, spec)
	_, err := Apply(t.Context(), s, []Device{
		{ID: "0b", Type: "blk", VMPath: "/dev/vdz", ContainerPath: "/dev/xda"},
		{ID: "/dev/vdc", Type: "mmioblk", VMPath: "/dev/vdc", ContainerPath: "/dev/xdb"},
	}, guest(t))
	if err != nil {
		t.Fatal(err)
	}
	nodes := s.Linux.Devices
	if nodes[0].Major != 1 || nodes[1].Major != 254 || nodes[1].Minor != 0 || nodes[1].Path != "/dev/xda" || nodes[2].Major != 254 || nodes[2].Minor != 32 {
		t.Errorf("nodes %+v", nodes)
	}
	got, err := json.Marshal(s.Linux.Resources.Devices)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		// The rule of the guest's own 254:0 was there and stays; the one of the
		// host's 7:0 becomes it, and a character device of that number does not.
		`[{"allow":false,"access":"rwm"},{"allow":true,"type":"b","major":254,"minor":0,"access":"rm"},{"allow":true,"type":"c","major":7,"minor":0,"access":"rwm"},{"allow":true,"type":"b","major":254,"minor":0,"access":"r"},`,
		`{"allow":true,"type":"b","major":254,"minor":0,"access":"rm"}`,
		`{"allow":true,"type":"b","major":254,"minor":32,"access":"rwm"}`,
	} {
		if !strings.Contains(string(got), want) {
			t.Errorf("rules %s\nlack  %s", got, want)
		}
	}
	if len(s.Linux.Resources.Devices) != 6 {
		t.Errorf("%d rules", len(s.Linux.Resources.Devices))
	}
}

// TestEachKindOfDisk sees the number that the guest has for it.
func TestEachKindOfDisk(t *testing.T) {
	f := guest(t)
	for minor, d := range map[int64]Device{
		0: {Type: "blk", ID: "0b"}, 16: {Type: "blk", ID: "02/03"}, 32: {Type: "mmioblk", VMPath: "/dev/vdc"},
		48: {Type: "scsi", ID: "1:2"}, 64: {Type: "nvdimm", VMPath: "/dev/pmem0"}, 80: {Type: "blk-ccw", ID: "0.0.0005"},
	} {
		d.ContainerPath = "/dev/xda"
		s := parse(t, spec)
		if _, err := Apply(t.Context(), s, []Device{d}, f); err != nil {
			t.Errorf("%s: %v", d.Type, err)
			continue
		}
		if n := s.Linux.Devices[1]; n.Major != 254 || n.Minor != minor || n.Type != "b" {
			t.Errorf("%s: %+v", d.Type, n)
		}
	}
}

func TestApplyWithoutResources(t *testing.T) {
	s := parse(t, `{"linux":{"devices":[{"path":"/dev/x","type":"b","major":7,"minor":0}]}}`)
	if _, err := Apply(t.Context(), s, []Device{{ID: "02/03", Type: "blk", ContainerPath: "/dev/x"}}, guest(t)); err != nil {
		t.Fatal(err)
	}
	if rules := s.Linux.Resources.Devices; len(rules) != 1 || *rules[0].Minor != 16 || rules[0].Access != "rwm" {
		t.Errorf("rules %+v", rules)
	}
}

func TestApplyRefuses(t *testing.T) {
	f := guest(t)
	good := Device{ID: "0b", Type: "blk", ContainerPath: "/dev/xda"}
	with := func(change func(*Device)) []Device { d := good; change(&d); return []Device{d} }
	for _, tt := range []struct {
		name  string
		ds    []Device
		class func(error) bool
	}{
		{"no type", with(func(d *Device) { d.Type = "" }), errdefs.IsInvalidArgument},
		{"no id", with(func(d *Device) { d.ID = "" }), errdefs.IsInvalidArgument},
		{"no container path", with(func(d *Device) { d.ContainerPath = "" }), errdefs.IsInvalidArgument},
		{"relative container path", with(func(d *Device) { d.ContainerPath = "dev/xda" }), errdefs.IsInvalidArgument},
		{"bad PCI path", with(func(d *Device) { d.ID = "/dev/vda" }), errdefs.IsInvalidArgument},
		{"mmio by id alone", with(func(d *Device) { d.Type = "mmioblk" }), errdefs.IsInvalidArgument},
		{"unknown type", with(func(d *Device) { d.Type = "9p" }), errdefs.IsNotImplemented},
		{"not plugged in", with(func(d *Device) { d.ID = "1f" }), errdefs.IsUnavailable},
		{"not in the spec", with(func(d *Device) { d.ContainerPath = "/dev/other" }), errdefs.IsInvalidArgument},
		{"not a disk in the spec", with(func(d *Device) { d.ContainerPath = "/dev/null" }), errdefs.IsInvalidArgument},
		{"twice", []Device{good, good}, errdefs.IsInvalidArgument},
		{"second fails", []Device{good, {ID: "1f", Type: "blk", ContainerPath: "/dev/xdb"}}, errdefs.IsUnavailable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := parse(t, spec)
			if _, err := Apply(t.Context(), s, tt.ds, f); !tt.class(err) {
				t.Errorf("got %v", err)
			}
			got, _ := json.Marshal(s)
			want, _ := json.Marshal(parse(t, spec))
			if string(got) != string(want) {
				t.Errorf("the spec changed: %s", got)
			}
		})
	}
	if _, err := Apply(t.Context(), &specs.Spec{}, []Device{good}, f); !errdefs.IsInvalidArgument(err) {
		t.Errorf("no linux section: %v", err)
	}
	if _, err := Apply(t.Context(), nil, nil, nil); err != nil {
		t.Errorf("no devices: %v", err)
	}
	same := parse(t, strings.ReplaceAll(spec, `"major":8,"minor":16`, `"major":7,"minor":0`))
	_, err := Apply(t.Context(), same, []Device{good, {ID: "02/03", Type: "blk", ContainerPath: "/dev/xdb"}}, f)
	if !errdefs.IsInvalidArgument(err) {
		t.Errorf("one host number, two devices: %v", err)
	}
}

func TestUnknownTypeIsNamed(t *testing.T) {
	_, err := Apply(t.Context(), parse(t, spec), []Device{{ID: "x", Type: "vfio-x", ContainerPath: "/dev/xda"}}, nil)
	if err == nil || !strings.Contains(err.Error(), `"vfio-x"`) {
		t.Errorf("got %v", err)
	}
}

func TestNodeMustBeADisk(t *testing.T) {
	f := guest(t)
	node := filepath.Join(f.Dev, "vda")
	if err := errors.Join(os.Remove(node), unix.Mknod(node, unix.S_IFCHR, 0)); err != nil {
		t.Fatal(err)
	}
	_, err := Apply(t.Context(), parse(t, spec), []Device{{ID: "0b", Type: "blk", ContainerPath: "/dev/xda"}}, f)
	if !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("got %v", err)
	}
}
