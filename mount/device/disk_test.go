package device

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

// Paths as QEMU guests of both architectures show them.
const (
	diskSCSI   = "/devices/pci0000:00/0000:00:03.0/virtio1/host0/target0:0:1/0:0:1:1/block/sda"
	diskSCSI10 = "/devices/pci0000:00/0000:00:03.0/virtio1/host0/target0:0:1/0:0:1:10/block/sdb"
	diskSCSI2  = "/devices/pci0000:00/0000:00:04.0/virtio2/host2/target2:0:7/2:0:7:0/block/sdc"
	diskSATA   = "/devices/pci0000:00/0000:00:1f.2/ata1/host3/target3:0:0/3:0:0:0/block/sdd"
	diskCCW    = "/devices/css0/0.0.0003/0.0.0005/virtio3/block/vda"
	diskCCWSet = "/devices/css0/0.0.0004/0.1.00a5/virtio4/block/vdb"
	diskPmem   = "/devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region0/namespace0.0/block/pmem0"
	diskVPmem  = "/devices/pci0000:00/0000:00:05.0/virtio5/ndbus1/region1/namespace1.0/block/pmem10"
)

// disks is a Finder of a machine with one of each kind, and partitions.
func disks(t *testing.T) *Finder {
	return &Finder{Timeout: time.Millisecond, Sys: sysfs(t, diskSCSI, diskSCSI+"/sda1", diskSCSI+"/sda10", diskSCSI10, diskSCSI2, diskSATA,
		diskCCW, diskCCW+"/vda1", diskCCWSet, diskPmem, diskPmem+"/pmem0p1", diskVPmem, diskMMIO)}
}

func must[M any](t *testing.T) func(M, error) M {
	return func(m M, err error) M {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
}

func TestWaitFindsDisksOfEachKind(t *testing.T) {
	f := disks(t)
	scsi, ccw, pmem, part := must[SCSIDisk](t), must[CCWDisk](t), must[Pmem](t), must[Partition](t)
	for _, tt := range []struct {
		name string
		m    Matcher
		want string // empty: not there
	}{
		{"scsi", scsi(ParseSCSIAddress("1:1")), "/dev/sda"},
		{"scsi unit 1 is not unit 10", scsi(ParseSCSIAddress("1:10")), "/dev/sdb"},
		{"scsi on another controller", scsi(ParseSCSIAddress("7:0")), "/dev/sdc"},
		{"scsi unit that is a prefix", scsi(ParseSCSIAddress("1:0")), ""},
		{"scsi target that is a suffix", scsi(ParseSCSIAddress("11:1")), ""},
		{"no virtio controller", scsi(ParseSCSIAddress("0:0")), ""},
		{"ccw", ccw(ParseCCW("0.0.0005")), "/dev/vda"},
		{"ccw without zeroes", ccw(ParseCCW("0.0.5")), "/dev/vda"},
		{"ccw in another set", ccw(ParseCCW("0.1.00a5")), "/dev/vdb"},
		{"ccw subchannel is no device", ccw(ParseCCW("0.0.0003")), ""},
		{"ccw in the wrong set", ccw(ParseCCW("0.1.0005")), ""},
		{"nvdimm", pmem(ParsePmem("/dev/pmem0")), "/dev/pmem0"},
		{"virtio-pmem", pmem(ParsePmem("/dev/pmem10")), "/dev/pmem10"},
		{"nvdimm that is a prefix", pmem(ParsePmem("/dev/pmem1")), ""},
		{"partition", part(NewPartition("/dev/sda", 1)), "/dev/sda1"},
		{"partition 1 is not 10", part(NewPartition("/dev/sda", 10)), "/dev/sda10"},
		{"partition of a name with a number", part(NewPartition("/dev/pmem0", 1)), "/dev/pmem0p1"},
		{"partition that is not there", part(NewPartition("/dev/sdb", 1)), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := f.Wait(t.Context(), tt.m)
			if got != tt.want || (tt.want == "") != errdefs.IsUnavailable(err) {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

// TestChildIsNotTheDisk hands each matcher the event of a partition, whose path
// begins like the disk's.
func TestChildIsNotTheDisk(t *testing.T) {
	for path, m := range map[string]Matcher{
		diskSCSI: must[SCSIDisk](t)(ParseSCSIAddress("1:1")),
		diskCCW:  must[CCWDisk](t)(ParseCCW("0.0.0005")),
		diskPmem: must[Pmem](t)(ParsePmem("/dev/pmem0")),
	} {
		disk := filepath.Base(path)
		if name, ok := m.Match(Event{"block", path, disk}); !ok || name != disk {
			t.Errorf("%s does not match its disk", m)
		}
		if _, ok := m.Match(Event{"block", path + "/" + disk + "1", disk + "1"}); ok {
			t.Errorf("%s took a partition for the disk", m)
		}
		if _, ok := m.Match(Event{"block", diskSCSI10, "sdb"}); ok {
			t.Errorf("%s took unit 10 for unit 1", m)
		}
		if _, ok := m.Match(Event{"net", path, disk}); ok {
			t.Errorf("%s took an interface for a disk", m)
		}
	}
}

// TestNodeComesAfterSysfs sees a Wait go on while the kernel has made the entry in
// sysfs and not the node.
func TestNodeComesAfterSysfs(t *testing.T) {
	f := &Finder{Sys: sysfs(t, diskBridge), Dev: t.TempDir(), Timeout: time.Minute}
	if err := os.WriteFile(filepath.Join(f.Sys, diskBridge, "dev"), []byte("254:16\n"), 0o444); err != nil {
		t.Fatal(err)
	}
	found := waiting(t, f, blk(t, "02/03"))
	f.deliver(Event{"block", diskDirect, "vda"}) // another one
	select {
	case got := <-found:
		t.Fatalf("got %s, which does not exist", got)
	default:
	}
	node := filepath.Join(f.Dev, "vdb")
	if err := os.WriteFile(node, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f.deliver(Event{"block", diskBridge, "vdb"})
	if got := <-found; got != node {
		t.Errorf("got %s", got)
	}
	if got, err := f.Wait(t.Context(), blk(t, "02/03")); got != node || err != nil {
		t.Errorf("got %s, %v", got, err)
	}
}

// TestSCSIScan sees the address written to every controller: machines of Kata
// boot with scsi_mod.scan=none.
func TestSCSIScan(t *testing.T) {
	sys := sysfs(t, diskMMIO)
	for _, host := range []string{"host0", "host2"} {
		dir := filepath.Join(sys, "class/scsi_host", host)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "scan"), nil, 0o200); err != nil {
			t.Fatal(err)
		}
	}
	f := &Finder{Sys: sys, Timeout: time.Millisecond}
	m := must[SCSIDisk](t)(ParseSCSIAddress("3:12"))
	if _, err := f.Wait(t.Context(), m); !errdefs.IsUnavailable(err) {
		t.Errorf("got %v", err)
	}
	for _, host := range []string{"host0", "host2"} {
		if got, err := os.ReadFile(filepath.Join(sys, "class/scsi_host", host, "scan")); string(got) != "0 3 12" || err != nil {
			t.Errorf("%s was asked for %q, %v", host, got, err)
		}
	}
	if err := os.RemoveAll(filepath.Join(sys, "class/scsi_host/host0/scan")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Wait(t.Context(), m); err == nil || errdefs.IsUnavailable(err) {
		t.Errorf("a controller that cannot scan: %v", err)
	}
}

// TestWaitLeavesTimeToAnswer sees a Wait end before the caller gives up, and a
// shorter timeout of the Finder's rule.
func TestWaitLeavesTimeToAnswer(t *testing.T) {
	for _, tt := range []struct {
		timeout, deadline time.Duration // 0 for none
		atMost            time.Duration
	}{
		{0, 0, DefaultTimeout}, {time.Minute, 0, time.Minute},
		{0, 10 * time.Second, 7500 * time.Millisecond}, {0, time.Second, 750 * time.Millisecond}, {0, time.Minute, 57 * time.Second},
		{time.Second, time.Minute, time.Second}, {time.Minute, time.Second, 750 * time.Millisecond},
	} {
		ctx, cancel := t.Context(), context.CancelFunc(func() {})
		if tt.deadline > 0 {
			ctx, cancel = context.WithTimeout(ctx, tt.deadline)
		}
		got := (&Finder{Timeout: tt.timeout}).timeout(ctx)
		cancel()
		if got > tt.atMost || got < tt.atMost/2 {
			t.Errorf("timeout %v and deadline %v: waits %v, want %v", tt.timeout, tt.deadline, got, tt.atMost)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, s := range []string{"", ":", "1", "1:", ":1", "1:1:1", "a:1", "01:1", "+1:1", "-1:0", "1:-1", "256:0", "0:16384", "1: 1", "1:1 ", "0x1:0", "1:1/../.."} {
		if d, err := ParseSCSIAddress(s); !errdefs.IsInvalidArgument(err) {
			t.Errorf("SCSI address %q: %v, %v", s, d, err)
		}
	}
	for _, s := range []string{"", "0.0", "0.0.", "0..1", "1.0.0001", "0.4.0001", "0.00.0001", "0.0.00001", "0.0.g", "0.0.+1", "0.0.0_1", "fe.0.0001", "0.0.1.1", "0/0/1"} {
		if d, err := ParseCCW(s); !errdefs.IsInvalidArgument(err) {
			t.Errorf("CCW device %q: %v, %v", s, d, err)
		}
	}
	for _, s := range []string{"", "pmem0", "/dev/pmem", "/dev/pmem-1", "/dev/pmem01", "/dev/pmem0s", "/dev/pmem0p1", "/dev/vda", "/dev/pmem0/../vda", "/dev/pmem70000"} {
		if d, err := ParsePmem(s); !errdefs.IsInvalidArgument(err) {
			t.Errorf("persistent memory %q: %v, %v", s, d, err)
		}
	}
	for _, n := range []int{-1, 0, 129} {
		if d, err := NewPartition("/dev/vda", n); !errdefs.IsInvalidArgument(err) {
			t.Errorf("partition %d: %v, %v", n, d, err)
		}
	}
}

func FuzzSCSIAddress(f *testing.F) {
	for _, s := range []string{"0:0", "1:10", "255:16383", "1:", "a:b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseSCSIAddress(s)
		if err == nil && d.String() != "disk at SCSI address "+s {
			t.Errorf("%q became %s", s, d)
		}
		d.Match(Event{"block", s, s})
	})
}

func FuzzCCW(f *testing.F) {
	for _, s := range []string{"0.0.0005", "0.3.ffff", "0.1.a", "0.0."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseCCW(s)
		if err != nil {
			return
		}
		if again, err := ParseCCW(d.id()); err != nil || again != d {
			t.Errorf("%q: %v, %v", s, again, err)
		}
	})
}

func FuzzPmem(f *testing.F) {
	f.Add("/dev/pmem0")
	f.Add("/dev/pmem0p1")
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := ParsePmem(s); err == nil && "/dev/"+p.name != s {
			t.Errorf("%q became %s", s, p)
		}
	})
}
