package device

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Paths as QEMU, Cloud Hypervisor and Firecracker guests show them.
const (
	diskDirect = "/devices/pci0000:00/0000:00:0b.0/virtio5/block/vda"
	diskBridge = "/devices/pci0000:00/0000:00:02.0/0000:01:03.0/virtio7/block/vdb"
	diskPXB    = "/devices/pci0000:20/0000:20:00.0/0000:21:02.0/virtio2/block/vdc"
	diskArm    = "/devices/platform/4010000000.pcie/pci0000:00/0000:00:04.0/virtio1/block/vdd"
	diskMMIO   = "/devices/platform/LNRO0005:01/virtio3/block/vde"
	diskLoop   = "/devices/virtual/block/loop0"
	netDirect  = "/devices/pci0000:00/0000:00:05.1/virtio0/net/eth0"
	netVFIO    = "/devices/pci0000:00/0000:00:02.0/0000:01:04.0/net/ens4"
)

// sysfs builds a tree with the class links that the kernel makes.
func sysfs(t testing.TB, devPaths ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, p := range devPaths {
		plug(t, root, p)
	}
	return root
}

func plug(t testing.TB, root, devPath string) {
	t.Helper()
	class := "block"
	if strings.Contains(devPath, "/net/") {
		class = "net"
	}
	for _, dir := range []string{filepath.Join(root, devPath), filepath.Join(root, "class", class)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	name := filepath.Base(devPath)
	if err := os.Symlink("../.."+devPath, filepath.Join(root, "class", class, name)); err != nil {
		t.Fatal(err)
	}
}

func blk(t testing.TB, source string) Matcher {
	t.Helper()
	m, err := ParseBlock(source)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func nic(t testing.TB, path string) Matcher {
	t.Helper()
	p, err := ParsePCIPath(path)
	if err != nil {
		t.Fatal(err)
	}
	return Net{p}
}

func TestWaitFindsWhatIsThere(t *testing.T) {
	sys := sysfs(t, diskDirect, diskDirect+"/vda1", diskBridge, diskPXB, diskArm, diskMMIO, diskLoop, netDirect, netVFIO)
	for _, tt := range []struct {
		name string
		m    Matcher
		want string // empty: not there
	}{
		{"on the root bus", blk(t, "0b"), "/dev/vda"},
		{"function spelled out", blk(t, "0b.0"), "/dev/vda"},
		{"behind a bridge", blk(t, "02/03"), "/dev/vdb"},
		{"expander bridge", blk(t, "20/00/02"), "/dev/vdc"},
		{"arm64 host bridge", blk(t, "04"), "/dev/vdd"},
		{"node of a mmio disk", blk(t, "/dev/vde"), "/dev/vde"},
		{"partition by its node", blk(t, "/dev/vda1"), "/dev/vda1"},
		{"interface", nic(t, "05.1"), "eth0"},
		{"interface that is no virtio", nic(t, "02/04"), "ens4"},
		{"the bridge itself", blk(t, "02"), ""},
		{"other function", blk(t, "0b.1"), ""},
		{"slot 3 is on another bus", blk(t, "03"), ""},
		{"prefix of a name", blk(t, "/dev/vd"), ""},
		{"disk asked as interface", nic(t, "0b"), ""},
		{"interface asked as disk", blk(t, "05.1"), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &Finder{Sys: sys, Timeout: time.Millisecond}
			got, err := f.Wait(t.Context(), tt.m)
			if got != tt.want || (tt.want == "") != errdefs.IsUnavailable(err) {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

// A matcher must not take a child of the device for the device.
func TestPartitionIsNotTheDisk(t *testing.T) {
	for _, m := range []Matcher{blk(t, "0b"), blk(t, "/dev/vda")} {
		if name, ok := m.Match(Event{"block", diskDirect + "/vda1", "vda1"}); ok {
			t.Errorf("%s matched %s", m, name)
		}
	}
}

func TestWaitSaysWhatIsThere(t *testing.T) {
	f := &Finder{Sys: sysfs(t, diskBridge, netDirect, diskLoop), Timeout: time.Millisecond}
	_, err := f.Wait(t.Context(), blk(t, "02/09"))
	if err == nil {
		t.Fatal("found")
	}
	for _, want := range []string{"virtio disk at PCI path 02/09", "1ms", "vdb at pci0000:00/0000:00:02.0", "eth0 at"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q lacks %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "loop0") {
		t.Errorf("%q names virtual devices", err)
	}
	if _, err := (&Finder{Sys: t.TempDir(), Timeout: 1}).Wait(t.Context(), blk(t, "01")); !errdefs.IsUnavailable(err) {
		t.Errorf("empty sysfs: %v", err)
	}
}

func TestWaitEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f := &Finder{Sys: t.TempDir(), Timeout: time.Hour}
	if _, err := f.Wait(ctx, blk(t, "01")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if len(f.waiters) != 0 {
		t.Errorf("%d waiters left", len(f.waiters))
	}
}

// waiting starts a Wait and returns once it is registered and has seen the
// whole of sysfs as it was.
func waiting(t testing.TB, f *Finder, m Matcher) <-chan string {
	t.Helper()
	out := make(chan string, 1)
	began := make(chan struct{})
	go func() {
		w := &announced{Matcher: m, began: began}
		path, err := f.Wait(context.Background(), w)
		if err != nil {
			path = err.Error()
		}
		out <- path
	}()
	<-began
	return out
}

// announced closes began when Wait first asks it, which is during the scan.
type announced struct {
	Matcher
	began chan struct{}
	asked bool
}

func (a *announced) Match(e Event) (string, bool) {
	if !a.asked {
		a.asked = true
		close(a.began)
	}
	return a.Matcher.Match(e)
}

func TestWaitTakesEvents(t *testing.T) {
	f := &Finder{Sys: sysfs(t, diskMMIO), Dev: "/d", Timeout: time.Minute}
	a, b := waiting(t, f, blk(t, "0b")), waiting(t, f, blk(t, "02/03"))
	f.deliver(Event{"block", diskDirect + "/vda1", "vda1"})
	f.deliver(Event{"block", diskDirect, "vda"})
	f.deliver(Event{"block", diskDirect, "vda"})
	if got := <-a; got != "/d/vda" {
		t.Errorf("got %q", got)
	}
	plug(t, f.Sys, diskBridge)
	f.rescan()
	if got := <-b; got != "/d/vdb" {
		t.Errorf("got %q", got)
	}
}

// TestRun lets the kernel repeat the event of a loop device, after a message
// that only looks like one.
func TestRun(t *testing.T) {
	const loop = "/sys/class/block/loop0"
	if _, err := os.Stat(loop); err != nil || os.Getuid() != 0 {
		t.Skip("needs root and a loop device to repeat an event of")
	}
	ctx, cancel := context.WithCancel(t.Context())
	f := &Finder{Sys: t.TempDir(), Timeout: time.Minute}
	evil := f.register(blk(t, "/dev/evil"))
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	<-evil.lost // the socket is open now

	forge(t, "add@/devices/x/block/evil\x00ACTION=add\x00SUBSYSTEM=block\x00DEVPATH=/devices/x/block/evil\x00DEVNAME=evil\x00")
	w := f.register(blk(t, "/dev/loop0"))
	if err := os.WriteFile(loop+"/uevent", []byte("add"), 0); err != nil {
		t.Fatal(err)
	}
	if e := <-w.found; e.DevName != "loop0" {
		t.Errorf("got %+v", e)
	}
	select {
	case e := <-evil.found:
		t.Errorf("believed a process: %+v", e)
	default:
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("ended with %v", err)
	}
}

func forge(t *testing.T, msg string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, []byte(msg), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		t.Fatal(err)
	}
}

func TestParseUevent(t *testing.T) {
	msg := func(fields ...string) string { return strings.Join(fields, "\x00") + "\x00" }
	disk := []string{"add@" + diskDirect, "ACTION=add", "DEVPATH=" + diskDirect, "SUBSYSTEM=block", "MAJOR=254", "DEVNAME=vda", "DEVTYPE=disk", "SEQNUM=9"}
	for _, tt := range []struct {
		name string
		msg  string
		want Event
		ok   bool
	}{
		{"disk", msg(disk...), Event{"block", diskDirect, "vda"}, true},
		{"interface", msg("add@"+netDirect, "ACTION=add", "DEVPATH="+netDirect, "SUBSYSTEM=net", "INTERFACE=eth0"), Event{"net", netDirect, "eth0"}, true},
		{"memory", msg("add@/devices/system/memory/memory33", "ACTION=add", "DEVPATH=/devices/system/memory/memory33", "SUBSYSTEM=memory"), Event{"memory", "/devices/system/memory/memory33", "memory33"}, true},
		{"removal", strings.ReplaceAll(msg(disk...), "ACTION=add", "ACTION=remove"), Event{}, false},
		{"other subsystem", strings.ReplaceAll(msg(disk...), "=block", "=tty"), Event{}, false},
		{"udev's own", "libudev\x00" + msg(disk...), Event{}, false},
		{"name climbs", strings.ReplaceAll(msg(disk...), "=vda", "=../etc/passwd"), Event{}, false},
		{"path climbs", strings.ReplaceAll(msg(disk...), "/block/", "/../"), Event{}, false},
		{"no name", strings.ReplaceAll(msg(disk...), "DEVNAME=vda", "X=1"), Event{}, false},
		{"cut off", msg(disk...)[:30], Event{}, false},
		{"empty", "", Event{}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e, ok := parseUevent([]byte(tt.msg))
			if ok != tt.ok || (ok && e != tt.want) {
				t.Errorf("got %+v, %v", e, ok)
			}
		})
	}
}

// Memory goes to whom it concerns and to nobody who waits for a device.
func TestMemoryIsHeard(t *testing.T) {
	var heard []string
	f := &Finder{Memory: func(block string) { heard = append(heard, block) }}
	w := f.register(BlockNode{"memory33"})
	defer f.unregister(w)
	for _, e := range []Event{{"memory", "/devices/system/memory/memory33", "memory33"}, {"block", "/devices/virtual/block/vda", "vda"}} {
		f.hear(e)
	}
	if len(heard) != 1 || heard[0] != "memory33" || len(w.found) != 0 {
		t.Errorf("heard %v, %d waiters woken", heard, len(w.found))
	}
	new(Finder).hear(Event{"memory", "/devices/system/memory/memory33", "memory33"})
}

func TestParseNet(t *testing.T) {
	const card = "/devices/css0/0.0.0002/0.0.00a1/virtio1/net/eth0"
	for _, tt := range []struct {
		in, path string
		match    bool
	}{
		{"0.0.00a1", card, true},
		{"0.0.a1", card, true},
		{"0.0.0002", card, false}, // the subchannel
		{"0.1.00a1", card, false},
		{"0.0.00a1", "/devices/css0/0.0.0002/0.0.00a1/virtio1/block/eth0", false},
		{"01.0/02", netDirect, false},
	} {
		m, err := ParseNet(tt.in)
		if err != nil {
			t.Fatal(err)
		}
		name, ok := m.Match(Event{"net", tt.path, "eth0"})
		if ok != tt.match || ok && name != "eth0" {
			t.Errorf("%s and %s: %q, %v", m, tt.path, name, ok)
		}
	}
	for _, in := range []string{"", "0.4.0001", "1.0.0001", "0.0.12345", "zz/99", "0.0.0001/01"} {
		if _, err := ParseNet(in); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func TestParsePCIPath(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"slot", "02", "02"}, {"one digit", "2", "02"}, {"bridges", "02/03/1f", "02/03/1f"},
		{"function", "1e.7/0.0", "1e.7/00"}, {"upper case", "0B", "0b"},
		{"expander", "20/00/02", "20/00/02"}, {"nested below a low slot", "02/00/01", "02/00/01"},
		{"empty", "", ""}, {"slash only", "/", ""}, {"slash at the end", "02/", ""}, {"slash first", "/02", ""},
		{"slot too large", "20", ""}, {"expander too short", "20/01", ""}, {"function too large", "02.8", ""},
		{"two functions", "02.1.1", ""}, {"no function", "02.", ""}, {"no slot", ".1", ""},
		{"not hex", "0g", ""}, {"sign", "+2", ""}, {"minus", "-1", ""}, {"blank", " 2", ""}, {"three digits", "002", ""},
		{"prefix", "0x2", ""}, {"address", "0000:00:02.0", ""}, {"too long", strings.Repeat("1/", 16) + "1", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := ParsePCIPath(tt.in)
			if tt.want == "" {
				if !errdefs.IsInvalidArgument(err) {
					t.Fatalf("got %v, %v", p, err)
				}
				return
			}
			if err != nil || p.String() != tt.want {
				t.Errorf("got %q, %v, want %q", p, err, tt.want)
			}
		})
	}
}

func TestParseBlockNode(t *testing.T) {
	for _, bad := range []string{"", "/dev/", "/dev/.", "/dev/..", "/dev/../etc", "/dev/disk/by-id/x", "vda", "/etc/vda", "/dev/a\x00", "/dev/" + strings.Repeat("a", 65)} {
		if m, err := ParseBlockNode(bad); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: got %v, %v", bad, m, err)
		}
	}
	if m, err := ParseBlockNode("/dev/dm-0"); !errdefs.IsPermissionDenied(err) {
		t.Errorf("a mapped device: got %v, %v", m, err)
	}
}

func TestBlockNumber(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	os.WriteFile(file, nil, 0o600)
	os.Symlink("/dev/loop0", link)
	for _, bad := range []string{"/dev/null", file, link, dir} {
		if _, _, err := BlockNumber(bad); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: got %v", bad, err)
		}
	}
	if _, err := os.Stat("/dev/loop0"); err == nil {
		if major, minor, err := BlockNumber("/dev/loop0"); major != 7 || minor != 0 || err != nil {
			t.Errorf("got %d:%d, %v", major, minor, err)
		}
	}
}

func FuzzUevent(f *testing.F) {
	f.Add([]byte("add@" + diskDirect + "\x00ACTION=add\x00DEVPATH=" + diskDirect + "\x00SUBSYSTEM=block\x00DEVNAME=vda\x00"))
	f.Add([]byte("change@/devices/a\x00ACTION=change\x00"))
	f.Fuzz(func(t *testing.T, msg []byte) {
		e, ok := parseUevent(msg)
		if ok && (!filepath.IsLocal(e.DevName) || !strings.HasPrefix(e.DevPath, "/devices/")) {
			t.Errorf("accepted %+v", e)
		}
		if ok {
			p, _ := ParsePCIPath("02/03")
			VirtioBlock{p}.Match(e)
			Net{p}.Match(e)
		}
	})
}

func FuzzPCIPath(f *testing.F) {
	for _, s := range []string{"02/03", "20/00/02", "1f.7", "", "/", "0b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePCIPath(s)
		if err != nil {
			return
		}
		again, err := ParsePCIPath(p.String())
		if err != nil || again.String() != p.String() {
			t.Errorf("%q: %q, %v", s, again, err)
		}
	})
}
