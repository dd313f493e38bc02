package initdata

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/evidence/initdata"
)

const document = "version = \"0.1.0\"\nalgorithm = \"sha256\"\n[data]\n\"policy.rego\" = \"package agent_policy\"\n"

// attach makes a loop disk with this content and a node for it in dir.
func attach(t *testing.T, dir, name string, content []byte) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root for a loop disk")
	}
	file, err := os.Create(filepath.Join(t.TempDir(), name))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	padded := append(bytes.Clone(content), make([]byte, 512-len(content)%512)...)
	if _, err := file.Write(padded); err != nil {
		t.Fatal(err)
	}
	number := loop(t, file)
	node := filepath.Join(dir, name)
	if err := unix.Mknod(node, unix.S_IFBLK|0o600, int(unix.Mkdev(7, uint32(number)))); err != nil {
		t.Fatal(err)
	}
}

func loop(t *testing.T, file *os.File) int {
	t.Helper()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("needs loop disks: %v", err)
	}
	defer control.Close()
	for range 20 { // another test may take the number in between
		number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			t.Skipf("needs loop disks: %v", err)
		}
		dev := filepath.Join(t.TempDir(), "loop")
		if err := unix.Mknod(dev, unix.S_IFBLK|0o600, int(unix.Mkdev(7, uint32(number)))); err != nil {
			t.Fatal(err)
		}
		disk, err := os.OpenFile(dev, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		os.Remove(dev)
		if err = unix.IoctlSetInt(int(disk.Fd()), unix.LOOP_SET_FD, int(file.Fd())); err == nil {
			t.Cleanup(func() {
				unix.IoctlSetInt(int(disk.Fd()), unix.LOOP_CLR_FD, 0)
				disk.Close()
			})
			return number
		}
		disk.Close()
		if !errors.Is(err, unix.EBUSY) {
			t.Fatal(err)
		}
	}
	t.Skip("no loop disk is free")
	return 0
}

func pack(t testing.TB, text string) []byte {
	t.Helper()
	disk, err := initdata.EncodeDisk([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return disk
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	attach(t, dir, "vda", []byte("some other disk"))
	attach(t, dir, "vdb", pack(t, document))
	before := descriptors(t)
	d, err := Load(t.Context(), dir, Binding{AllowUnbound: true})
	if err != nil {
		t.Fatal(err)
	}
	if string(d.Raw) != document || d.Data[initdata.Policy] != "package agent_policy" {
		t.Errorf("got %+v", d)
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	if _, device, _ := Find(t.Context(), dir); device != filepath.Join(dir, "vdb") {
		t.Errorf("came from %s", device)
	}
}

func TestNoDocument(t *testing.T) {
	for name, disks := range map[string]map[string][]byte{
		"none":        nil,
		"other disks": {"vda": []byte("x"), "sda": []byte("Initdata")},
		"other names": {"nvme0n1": pack(t, document)},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for name, content := range disks {
				attach(t, dir, name, content)
			}
			if _, _, err := Find(t.Context(), dir); !errdefs.IsNotFound(err) {
				t.Errorf("Find: %v", err)
			}
			if d, err := Load(t.Context(), dir, Binding{}); d != nil || err != nil {
				t.Errorf("Load = %v, %v", d, err)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	long := binary.LittleEndian.AppendUint64([]byte("initdata"), 1<<62)
	for _, c := range []struct {
		name  string
		disks map[string][]byte
		class error
		fault string
	}{
		{"two", map[string][]byte{"vda": pack(t, document), "sda": pack(t, document)}, errdefs.ErrFailedPrecondition, "sda and "},
		{"lying length", map[string][]byte{"vda": long}, errdefs.ErrInvalidArgument, "length exceeds"},
		{"damaged", map[string][]byte{"vda": append(binary.LittleEndian.AppendUint64([]byte("initdata"), 8), "garbage!"...)}, errdefs.ErrInvalidArgument, "not gzip"},
		{"inflates too far", map[string][]byte{"vda": pack(t, strings.Repeat(" ", initdata.MaxSize+1))}, errdefs.ErrInvalidArgument, "text exceeds"},
		{"no document", map[string][]byte{"sdb": pack(t, "some content")}, errdefs.ErrInvalidArgument, "sdb"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, content := range c.disks {
				attach(t, dir, name, content)
			}
			before := descriptors(t)
			d, err := Load(t.Context(), dir, Binding{AllowUnbound: true})
			if d != nil || !errors.Is(err, c.class) || !strings.Contains(err.Error(), c.fault) {
				t.Errorf("got %v %v, want %q", d, err, c.fault)
			}
			if after := descriptors(t); after != before {
				t.Errorf("%d descriptors before, %d after", before, after)
			}
		})
	}
}

// Whatever else lies in /dev under a fitting name is not read: a pipe would
// block for ever, a link could lead anywhere.
func TestOnlyBlockDevices(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "vda"), pack(t, document), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "vdb"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("vda", filepath.Join(dir, "vdc")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "sda"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Find(t.Context(), dir); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

// A node without a disk behind it is passed over, as the disk may just be gone.
func TestUnreadableDisk(t *testing.T) {
	dir := t.TempDir()
	attach(t, dir, "vdb", pack(t, document))
	if err := unix.Mknod(filepath.Join(dir, "vda"), unix.S_IFBLK|0o600, int(unix.Mkdev(250, 250))); err != nil {
		t.Fatal(err)
	}
	if _, device, err := Find(t.Context(), dir); err != nil || filepath.Base(device) != "vdb" {
		t.Errorf("got %s %v", device, err)
	}
}

func TestFindIsBounded(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := Find(ctx, t.TempDir()); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if _, _, err := Find(t.Context(), filepath.Join(t.TempDir(), "nowhere")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// FuzzDocument admits what is on a disk where the register has its digest, and
// where the image does without.
func FuzzDocument(f *testing.F) {
	for _, text := range []string{document, sha384Document, sha512Document} {
		for _, size := range []int{0, snp, tdx, cca} {
			for _, algorithm := range algorithms {
				sum, err := initdata.Digest(algorithm, []byte(text))
				if err != nil {
					f.Fatal(err)
				}
				f.Add(pack(f, text), initdata.Pad(sum, size), size == 0)
			}
		}
	}
	f.Add(pack(f, document), make([]byte, tdx), true)
	f.Add(pack(f, "no document"), []byte(nil), true)
	f.Add([]byte("initdata\xff\xff\xff\xff\xff\xff\xff\xff"), []byte(nil), false)
	f.Fuzz(func(t *testing.T, disk, value []byte, allow bool) {
		raw, err := initdata.DecodeDisk(bytes.NewReader(disk), 64<<10)
		if err != nil {
			return
		}
		b := Binding{AllowUnbound: allow}
		if len(value) > 0 {
			b.Anchor = register{value: value}
		}
		if d, err := b.admit(t.Context(), raw, "vda"); err == nil {
			if len(value) == 0 && !allow || len(value) > 0 && !bytes.Equal(initdata.Pad(d.Digest(), len(value)), value) {
				t.Errorf("admitted %q with the register %x", raw, value)
			}
		}
		host := &pcr{value: [32]byte(initdata.Pad(value, 32)), binds: !allow}
		if d, err := (Binding{Extend: host, AllowUnbound: allow}).admit(t.Context(), raw, "vda"); err == nil && (host.extensions != 1 || host.value != extended(string(raw)) || d.Algorithm != "sha256") {
			t.Errorf("admitted %q with PCR 8 at %x", raw, host.value)
		}
	})
}
