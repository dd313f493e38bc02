package tee

import (
	"context"
	"os"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/tpm"
	"github.com/coffer-cc/coffer/evidence/tsm"
)

// brokenTSM is a report interface that fails at one attribute.
type brokenTSM struct {
	tsm.FS
	at  string
	err error
	out []byte // instead of the error
}

func (b brokenTSM) ReadAttr(dir, name string, max int) ([]byte, error) {
	if name == b.at {
		return b.out, b.err
	}
	return b.FS.ReadAttr(dir, name, max)
}

func TestCodesOfPlatforms(t *testing.T) {
	none := host{root: t.TempDir(), reports: tsm.OS("/nonexistent"), openTPM: tpm.Open}.drivers()
	if _, err := Detect(none); evidence.CodeOf(err) != evidence.PlatformNone {
		t.Errorf("none: %v", err)
	}
	if _, err := Select("snp", none); evidence.CodeOf(err) != evidence.PlatformNone {
		t.Errorf("absent: %v", err)
	}
	there := []Driver{{Kind: evidence.TDX, Present: func() bool { return true }}}
	if _, err := Select("snp", there); evidence.CodeOf(err) != evidence.PlatformWrong {
		t.Errorf("wrong: %v", err)
	}
}

func TestCodesOfTDX(t *testing.T) {
	p := evidencetest.NewTDX(t)
	sign := func(change func([]byte)) func([64]byte) ([]byte, []byte, error) {
		return func(in [64]byte) ([]byte, []byte, error) {
			out, aux, err := p.Sign(in)
			change(out)
			return out, aux, err
		}
	}
	kernel := func(change func([]byte)) tsm.FS {
		return &evidencetest.TSM{Provider: "tdx_guest", Sign: sign(change)}
	}
	same := func([]byte) {}
	for name, c := range map[string]struct {
		host host
		want evidence.Code
	}{
		"no device":         {host{}, evidence.DriverDevice},
		"attribute fails":   {host{reports: brokenTSM{FS: kernel(same), at: "outblob", err: unix.EIO}}, evidence.DriverConfigfs},
		"no quoting":        {host{reports: brokenTSM{FS: kernel(same), at: "outblob", err: unix.ETIMEDOUT}}, evidence.EndorsementQuoting},
		"empty quote":       {host{reports: brokenTSM{FS: kernel(same), at: "outblob"}}, evidence.EndorsementQuoting},
		"short quote":       {host{reports: brokenTSM{FS: kernel(same), at: "outblob", out: []byte("short")}}, evidence.DriverReply},
		"other version":     {host{reports: kernel(func(b []byte) { b[0] = 3 })}, evidence.PlatformUnsupported},
		"other report data": {host{reports: kernel(func(b []byte) { b[48+520] ^= 1 })}, evidence.DriverReply},
	} {
		t.Run(name, func(t *testing.T) {
			if c.host.root == "" {
				c.host.root = t.TempDir()
			}
			if c.host.reports == nil {
				c.host.reports = tsm.OS(c.host.root)
			}
			g := &tdxGuest{host: c.host, turn: newTurn()}
			if _, err := g.Collect(t.Context(), evidence.ReportData{}); evidence.CodeOf(err) != c.want {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
}

// TestCodeOfADevice has the device's request fail, and then not end.
func TestCodeOfADevice(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(root+"/dev", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(root+"/dev/tdx_guest", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h := host{root: root, reports: tsm.OS(root), ioctl: func(uintptr, uintptr, unsafe.Pointer) error { return unix.EIO }}
	g := &tdxGuest{host: h, turn: newTurn()}
	if _, err := g.Collect(t.Context(), evidence.ReportData{}); evidence.CodeOf(err) != evidence.DriverIoctl {
		t.Errorf("refused: %v", err)
	}
	hold := make(chan struct{})
	defer close(hold)
	g.host.ioctl = func(uintptr, uintptr, unsafe.Pointer) error { <-hold; return unix.EIO }
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := g.Collect(ctx, evidence.ReportData{}); evidence.CodeOf(err) != evidence.DriverTimeout {
		t.Errorf("slow: %v", err)
	}
}
