package tsm_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
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

// echo is a driver whose report is the report data.
func echo(in [64]byte) (out, aux []byte, err error) { return in[:], []byte("certificates"), nil }

func TestGet(t *testing.T) {
	in := [64]byte{1, 2, 3}
	fake := &evidencetest.TSM{Provider: "sev_guest", Sign: echo}
	got, err := tsm.Get(fake, tsm.Request{Provider: "sev_guest", In: in, Aux: true})
	if err != nil || [64]byte(got.Out) != in || string(got.Aux) != "certificates" {
		t.Errorf("Get = %x, %q, %v", got.Out, got.Aux, err)
	}
	if _, err := tsm.Get(fake, tsm.Request{Provider: "tdx_guest", In: in}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("another driver: %v", err)
	}
	if n := fake.Entries(); n != 0 {
		t.Errorf("%d entries are left behind", n)
	}
}

func TestGetWhileOthersWrite(t *testing.T) {
	in := [64]byte{1, 2, 3}
	once := &evidencetest.TSM{Provider: "sev_guest", Sign: echo, Races: 1}
	got, err := tsm.Get(once, tsm.Request{Provider: "sev_guest", In: in})
	if err != nil || [64]byte(got.Out) != in {
		t.Errorf("raced once: %x, %v", got.Out, err)
	}
	always := &evidencetest.TSM{Provider: "sev_guest", Sign: echo, Races: 1000}
	if got, err := tsm.Get(always, tsm.Request{Provider: "sev_guest", In: in}); !errdefs.IsAborted(err) {
		t.Errorf("raced for ever: %x, %v", got.Out, err)
	}
	if once.Entries()+always.Entries() != 0 {
		t.Error("entries are left behind")
	}
}

func TestGetBoundsReport(t *testing.T) {
	huge := func([64]byte) (out, aux []byte, err error) { return make([]byte, 1<<20), nil, nil }
	fake := &evidencetest.TSM{Provider: "sev_guest", Sign: huge}
	if _, err := tsm.Get(fake, tsm.Request{Provider: "sev_guest"}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("report of a megabyte: %v", err)
	}
}
