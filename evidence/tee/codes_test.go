package tee

import (
	"context"
	"encoding/json"
	"os"
	"strings"
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

// TestDecode shows what was launched, and never without debug, TCB and SMT.
func TestDecode(t *testing.T) {
	snp, tdx := evidencetest.NewSNP(t), evidencetest.NewTDX(t)
	snp.Measurement, tdx.MRTD = [48]byte{0xab}, [48]byte{0xcd}
	realm, _ := inRealm(evidencetest.NewCCA(t))
	for name, c := range map[string]struct {
		guest evidence.Collector
		has   []string
	}{
		"snp":    {&snpGuest{host: host{reports: &evidencetest.TSM{Provider: "sev_guest", Sign: snp.Sign}}, turn: newTurn()}, []string{"version 3", "measurement ab00", "reported_tcb bootloader", "vmpl 0", "certificates VCEK"}},
		"tdx":    {&tdxGuest{host: host{root: t.TempDir(), reports: &evidencetest.TSM{Provider: "tdx_guest", Sign: tdx.Sign}}, turn: newTurn()}, []string{"version 4", "measurement cd00", "tee_tcb_svn", "rtmr3"}},
		"cca":    {realm, []string{"initdata 0000", "tcb not read here"}},
		"sample": {Sample(), []string{"version 1", "tcb nothing is proven"}},
	} {
		t.Run(name, func(t *testing.T) {
			rd, err := evidence.NewReportData([]byte{0x5a, 0xa5})
			if err != nil {
				t.Fatal(err)
			}
			e, err := c.guest.Collect(t.Context(), rd)
			if err != nil {
				t.Fatal(err)
			}
			fields, err := Decode(e)
			if err != nil {
				t.Fatal(err)
			}
			var text strings.Builder
			for _, f := range fields {
				text.WriteString(f.Name + " " + f.Value + "\n")
			}
			for _, want := range append(c.has, "tee "+name, "report_data 5aa5", "initdata ", "\ndebug ", "tcb", "\nsmt ") {
				if !strings.Contains(text.String(), want) {
					t.Errorf("lacks %q:\n%s", want, text.String())
				}
			}
		})
	}
}

// FuzzDecode reads what may have come by way of the host.
func FuzzDecode(f *testing.F) {
	f.Add("tdx", []byte(`{"quote":"AAAA"}`))
	f.Add("snp", []byte(`{"attestation_report":{"version":3},"cert_chain":null}`))
	f.Add("sample", []byte(`{"svn":"1"}`))
	f.Add("cca", []byte(`{"token":[217,1,143,160]}`))
	f.Fuzz(func(t *testing.T, kind string, data []byte) {
		fields, err := Decode(evidence.Evidence{Kind: evidence.Kind(kind), Data: json.RawMessage(data)})
		if err == nil && len(fields) < 4 {
			t.Errorf("%v", fields)
		}
	})
}
