package tsm_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/tsm"
)

func TestProvider(t *testing.T) {
	fake := &evidencetest.TSM{Provider: "tdx_guest"}
	got, err := tsm.Provider(fake)
	if err != nil || got != "tdx_guest" {
		t.Errorf("Provider = %q, %v", got, err)
	}
	if n := fake.Entries(); n != 0 {
		t.Errorf("%d entries are left behind", n)
	}
	if _, err := tsm.Provider(&evidencetest.TSM{}); !errors.Is(err, unix.ENXIO) {
		t.Errorf("without a driver: %v, want ENXIO", err)
	}
}

func TestProviderOnPlainFiles(t *testing.T) {
	root := t.TempDir()
	if _, err := tsm.Provider(tsm.OS(root)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without configfs: %v", err)
	}
	dir := filepath.Join(root, "sys/kernel/config/tsm/report")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if name, err := tsm.Provider(tsm.OS(root)); err == nil {
		t.Errorf("an entry without attributes has the provider %q", name)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("entry %s is left behind", left[0].Name())
	}
}
