package guest

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"unsafe"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/mount/device"
)

// finds answers with one node, whatever is waited for.
type finds struct {
	node string
	err  error
	last string
}

func (f *finds) Wait(_ context.Context, m device.Matcher) (string, error) {
	f.last = m.String()
	return f.node, f.err
}

func swaps(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/swaps")
	if err != nil {
		t.Skip("the kernel cannot swap:", err)
	}
	return string(text)
}

func TestSwap(t *testing.T) {
	d := newDisk(t, 16<<20)
	if _, err := exec.LookPath("mkswap"); err != nil {
		t.Skip(err)
	}
	f := &finds{node: d.loop}
	s := Swap{f}
	if err := s.AddSlots(t.Context(), []uint32{2, 3}); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "no swap area") {
		t.Errorf("a blank disk: %v", err)
	}
	if f.last != "virtio disk at PCI path 02/03" {
		t.Errorf("waited for %s", f.last)
	}
	run(t, "mkswap", d.loop)
	if err := s.AddSlots(t.Context(), []uint32{2, 3}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p, _ := unix.BytePtrFromString(d.loop)
		if _, _, errno := unix.Syscall(unix.SYS_SWAPOFF, uintptr(unsafe.Pointer(p)), 0, 0); errno != 0 {
			t.Error(errno)
		}
		if strings.Contains(swaps(t), d.loop+" ") {
			t.Error("the swap is still there")
		}
	})
	if !strings.Contains(swaps(t), d.loop+" ") {
		t.Errorf("not in use:\n%s", swaps(t))
	}
	if err := s.AddNode(t.Context(), "/dev/vdz"); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second time: %v", err)
	}
	if f.last != "block device vdz" {
		t.Errorf("waited for %s", f.last)
	}
}

func TestSwapRefuses(t *testing.T) {
	before := swaps(t)
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	none, gone := Swap{&finds{node: file}}, Swap{&finds{err: errdefs.ErrUnavailable}}
	for name, tc := range map[string]struct {
		err  error
		is   func(error) bool
		text string
	}{
		"no slots":        {none.AddSlots(t.Context(), nil), errdefs.IsInvalidArgument, "PCIPath: "},
		"too many slots":  {none.AddSlots(t.Context(), make([]uint32, 17)), errdefs.IsInvalidArgument, "PCIPath: "},
		"no slot":         {none.AddSlots(t.Context(), []uint32{2, 0x20}), errdefs.IsInvalidArgument, "PCIPath[1]: "},
		"not below dev":   {none.AddNode(t.Context(), "/etc/passwd"), errdefs.IsInvalidArgument, "path: "},
		"deeper":          {none.AddNode(t.Context(), "/dev/../etc/passwd"), errdefs.IsInvalidArgument, "path: "},
		"no block device": {none.AddNode(t.Context(), "/dev/vdz"), errdefs.IsInvalidArgument, "path: "},
		"never comes":     {gone.AddNode(t.Context(), "/dev/vdz"), errdefs.IsUnavailable, "path: "},
	} {
		if !tc.is(tc.err) || !strings.HasPrefix(tc.err.Error(), tc.text) {
			t.Errorf("%s: %v", name, tc.err)
		}
	}
	if now := swaps(t); now != before {
		t.Errorf("swap changed to\n%s", now)
	}
}
