package guest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestReseed(t *testing.T) {
	m := New()
	if err := m.Reseed([]byte("known to the host")); os.IsPermission(err) {
		t.Skip("needs root to reseed:", err)
	} else if err != nil {
		t.Fatal(err)
	}
	if err := m.Reseed(nil); !errdefs.IsInvalidArgument(err) || !strings.HasPrefix(err.Error(), "data: ") {
		t.Errorf("no data: %v", err)
	}
}

// What is not the random device is no success.
func TestReseedElsewhere(t *testing.T) {
	m := fakeMachine(t, map[string]string{"dev/random": ""})
	m.Dev = filepath.Join(filepath.Dir(m.Proc), "dev")
	if err := m.Reseed([]byte("mixed in")); err == nil {
		t.Error("a plain file was reseeded")
	}
	if got, _ := readWord(filepath.Join(m.Dev, "random")); got != "mixed in" {
		t.Errorf("written was %q", got)
	}
}

func TestProbeMemory(t *testing.T) {
	const dir = "sys/devices/system/memory/"
	m := fakeMachine(t, map[string]string{dir + "probe": "", dir + "block_size_bytes": "8000000\n"})
	probe := filepath.Join(m.Sys, "devices/system/memory/probe")
	for _, tc := range []struct {
		name string
		at   []uint64
		text string
	}{
		{"inside a block", []uint64{0x100000000, 0x108000001}, "memHotplugProbeAddr[1]: "},
		{"too many", make([]uint64, maxProbes+1), "memHotplugProbeAddr: "},
	} {
		if err := m.ProbeMemory(tc.at); !errdefs.IsInvalidArgument(err) || !strings.HasPrefix(err.Error(), tc.text) {
			t.Errorf("%s: %v", tc.name, err)
		}
		if got, _ := readWord(probe); got != "" {
			t.Errorf("%s: probed %q", tc.name, got)
		}
	}
	if err := m.ProbeMemory([]uint64{0x1A8000000}); err != nil {
		t.Error(err)
	}
	if got, _ := readWord(probe); got != "0x1A8000000" {
		t.Errorf("probed %q", got)
	}
	if err := fakeMachine(t, nil).ProbeMemory([]uint64{0}); !errdefs.IsNotImplemented(err) {
		t.Errorf("without a probe file: %v", err)
	}
}
