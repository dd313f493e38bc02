package guest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// fakeMachine writes files below a temporary /proc and /sys.
func fakeMachine(t *testing.T, files map[string]string) Machine {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"proc", "sys/devices/system/cpu", "sys/devices/system/memory"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return Machine{Proc: filepath.Join(dir, "proc"), Sys: filepath.Join(dir, "sys")}
}

func TestMemory(t *testing.T) {
	for _, tc := range []struct {
		name  string
		files map[string]string
		want  Memory
		fails bool
	}{
		{"none", nil, Memory{}, false},
		{"block size", map[string]string{"sys/devices/system/memory/block_size_bytes": "8000000\n"}, Memory{BlockSize: 128 << 20}, false},
		{"probe", map[string]string{"sys/devices/system/memory/probe": ""}, Memory{Probe: true}, false},
		{"nonsense", map[string]string{"sys/devices/system/memory/block_size_bytes": "huge\n"}, Memory{}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := fakeMachine(t, tc.files).Memory()
			if got != tc.want || (err != nil) != tc.fails {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func cpus(t *testing.T, states ...string) Machine {
	files := map[string]string{"sys/devices/system/cpu/cpu0/topology": "", "sys/devices/system/cpu/cpuidle/x": ""}
	for i, s := range states {
		files[fmt.Sprintf("sys/devices/system/cpu/cpu%d/online", i+1)] = s + "\n"
	}
	return fakeMachine(t, files)
}

func TestOnlineCPUs(t *testing.T) {
	for _, tc := range []struct {
		name   string
		states []string
		total  uint32
		want   string
	}{
		{"none asked", []string{"0"}, 0, "0"},
		{"enough", []string{"1", "0"}, 2, "10"},
		{"one more", []string{"0", "0", "0"}, 2, "100"},
		{"all", []string{"0", "0"}, 3, "11"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := cpus(t, tc.states...)
			for range 2 {
				if err := m.OnlineCPUs(t.Context(), tc.total); err != nil {
					t.Fatal(err)
				}
			}
			var got string
			for i := range tc.states {
				s, _ := readWord(filepath.Join(m.Sys, fmt.Sprintf("devices/system/cpu/cpu%d/online", i+1)))
				got += s[:1]
			}
			if got != tc.want {
				t.Errorf("states %s, want %s", got, tc.want)
			}
		})
	}
}

func TestOnlineCPUsGivesUp(t *testing.T) {
	m := cpus(t, "0")
	synctest.Test(t, func(t *testing.T) {
		if err := m.OnlineCPUs(t.Context(), 3); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "2 of 3") {
			t.Errorf("got %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := m.OnlineCPUs(ctx, 3); !errdefs.IsCanceled(err) && ctx.Err() == nil {
			t.Errorf("got %v", err)
		}
	})
	if err := m.OnlineCPUs(t.Context(), 1<<20); !errdefs.IsInvalidArgument(err) {
		t.Errorf("got %v", err)
	}
}

func TestOnlineMemory(t *testing.T) {
	m := fakeMachine(t, map[string]string{
		"sys/devices/system/memory/memory0/online":   "1\n",
		"sys/devices/system/memory/memory32/online":  "0\n",
		"sys/devices/system/memory/memory33/online":  "0\n",
		"sys/devices/system/memory/block_size_bytes": "8000000\n",
	})
	if err := m.OnlineCPUMem(t.Context(), 0, true); err != nil {
		t.Fatal(err)
	}
	if s, _ := readWord(filepath.Join(m.Sys, "devices/system/memory/memory32/online")); s != "0" {
		t.Error("memory came online unasked")
	}
	for range 2 {
		if err := m.OnlineCPUMem(t.Context(), 0, false); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []string{"memory32", "memory33"} {
		if s, _ := readWord(filepath.Join(m.Sys, "devices/system/memory", n, "online")); s[:1] != "1" {
			t.Errorf("%s reads %q", n, s)
		}
	}
	if err := (Machine{Sys: t.TempDir()}).OnlineMemory(); err != nil {
		t.Errorf("without hot-plugged memory: %v", err)
	}
}

func TestTerminationLog(t *testing.T) {
	dir := t.TempDir()
	shared := filepath.Join(dir, "shared")
	if err := os.MkdirAll(shared, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"shared/log": "it is over \xff", "shared/long": strings.Repeat("x", 5000), "secret": "key",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../secret", filepath.Join(shared, "link")); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, source, annotation string
		want                     string
		fails                    func(error) bool
	}{
		{"log", "shared/log", "/dev/termination-log", "it is over \uFFFD", nil},
		{"long", "shared/long", "/dev/termination-log", strings.Repeat("x", 4096), nil},
		{"missing file", "shared/none", "/dev/termination-log", "", nil},
		{"no annotation", "shared/log", "", "", errdefs.IsFailedPrecondition},
		{"other mount", "shared/log", "/other", "", errdefs.IsFailedPrecondition},
		{"outside", "secret", "/dev/termination-log", "", errdefs.IsInvalidArgument},
		{"link out", "shared/link", "/dev/termination-log", "", errdefs.IsPermissionDenied},
		{"directory", "shared/d/..", "/dev/termination-log", "", errdefs.IsInvalidArgument},
	} {
		t.Run(tc.name, func(t *testing.T) {
			spec := &specs.Spec{
				Annotations: map[string]string{terminationLogPath: tc.annotation},
				Mounts:      []specs.Mount{{Destination: "/dev/termination-log", Source: dir + "/" + tc.source}},
			}
			got, err := TerminationLog(spec, shared)
			if got != tc.want {
				t.Errorf("got %q", got)
			}
			if (err != nil) != (tc.fails != nil) || err != nil && !tc.fails(err) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestRefreshShares(t *testing.T) {
	RefreshShares(t.Context(), filepath.Join(t.TempDir(), "nothing"))
}

// TestOnlineBlock works on the tree of a guest whose kernel leaves plugged memory
// alone (memhp_default_state=offline).
func TestOnlineBlock(t *testing.T) {
	m := fakeMachine(t, map[string]string{
		"sys/devices/system/memory/memory32/online": "0\n",
		"sys/devices/system/memory/memory33/online": "1\n",
		"sys/devices/system/cpu/cpu1/online":        "0\n",
	})
	for _, block := range []string{"memory32", "memory33", "memory32"} {
		if err := m.OnlineBlock(block); err != nil {
			t.Error(err)
		}
	}
	if s, _ := readWord(filepath.Join(m.Sys, "devices/system/memory/memory32/online")); s[:1] != "1" {
		t.Errorf("memory32 reads %q", s)
	}
	for _, block := range []string{"", "memory", "memory-1", "memory1/../../cpu/cpu1", "../cpu/cpu1"} {
		if err := m.OnlineBlock(block); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", block, err)
		}
	}
	if err := m.OnlineBlock("memory99"); err == nil {
		t.Error("a block that is not there came on line")
	}
}
