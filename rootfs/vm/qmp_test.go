package vm

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

// TestMonitor speaks to a QEMU that runs no guest at all.
func TestMonitor(t *testing.T) {
	dir := t.TempDir()
	v := &VM{dir: dir, console: newConsole(nil)}
	err := v.helper(t.Context(), v.monitorPath(), qemuProgram, "-machine", "none", "-nodefaults", "-display", "none",
		"-qmp", "unix:"+v.monitorPath()+",server=on,wait=off")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Stop() })
	var status struct{ Status string }
	if err := v.Execute(t.Context(), "query-status", nil, &status); err != nil || status.Status == "" {
		t.Errorf("status %q, error %v", status.Status, err)
	}
	err = v.Plug(t.Context(), "no-such-device", "x", nil)
	if !errors.Is(err, errdefs.ErrFailedPrecondition) || !strings.Contains(err.Error(), "no-such-device") {
		t.Errorf("an unknown device gives %v", err)
	}
	if err := v.Execute(t.Context(), "stop", nil, nil); err != nil {
		t.Error(err)
	}
	m, err := v.openMonitor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stopped := func(event string, _ json.RawMessage) bool { return event == "STOP" || event == "RESUME" }
	if err := v.Execute(t.Context(), "cont", nil, nil); err != nil {
		t.Error(err)
	}
	if err := m.wait(t.Context(), "an event", stopped); err != nil {
		t.Error(err)
	}
	short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := m.wait(short, "nothing", func(string, json.RawMessage) bool { return false }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for nothing gives %v", err)
	}
	if err := v.Stop(); err != nil {
		t.Error(err)
	}
	short, cancel = context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := dialMonitor(short, filepath.Join(dir, "nobody")); err == nil {
		t.Error("dialled a socket that is not there")
	}
}
