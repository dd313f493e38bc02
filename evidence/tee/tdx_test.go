package tee

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/measure"
	"github.com/coffer-cc/coffer/evidence/verify"
)

// put writes a file of the guest.
func put(t *testing.T, root, name string, content []byte) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

func tdxOnConfigfs(t *testing.T, p *evidencetest.TDX) *tdxGuest {
	t.Helper()
	return &tdxGuest{turn: newTurn(), host: host{
		root: t.TempDir(), reports: &evidencetest.TSM{Provider: "tdx_guest", Sign: p.Sign}, ioctl: ioctl,
	}}
}

// module answers as /dev/tdx_guest does.
func module(p *evidencetest.TDX) func(fd, command uintptr, arg unsafe.Pointer) error {
	return func(_, command uintptr, arg unsafe.Pointer) error {
		if command != evidencetest.TDXGetReport0 {
			return unix.ENOTTY
		}
		req := (*tdxReportReq)(arg)
		copy(req.tdreport[:], p.Report(req.reportData))
		return nil
	}
}

// qgs is a quoting service, on the other end of a pipe.
func qgs(t *testing.T, p *evidencetest.TDX, answer func(quote []byte) []byte) QGSDialer {
	return func(_ context.Context, port uint32) (net.Conn, error) {
		if port != evidencetest.QGSPort {
			t.Errorf("port %d", port)
		}
		guest, service := net.Pipe()
		go func() {
			defer service.Close()
			if err := p.ServeQGS(service, answer); err != nil {
				t.Error(err)
			}
		}()
		return guest, nil
	}
}

func tdxOnDevice(t *testing.T, p *evidencetest.TDX) *tdxGuest {
	t.Helper()
	root := t.TempDir()
	put(t, root, "dev/tdx_guest", nil)
	return &tdxGuest{turn: newTurn(), host: host{
		root: root, reports: &evidencetest.TSM{}, ioctl: module(p), qgs: qgs(t, p, evidencetest.QGSAnswer),
	}}
}

func TestTDXEvidence(t *testing.T) {
	for name, open := range map[string]func(*testing.T, *evidencetest.TDX) *tdxGuest{"configfs": tdxOnConfigfs, "device and QGS": tdxOnDevice} {
		for _, version := range []uint16{4, 5} {
			t.Run(name, func(t *testing.T) {
				p := evidencetest.NewTDX(t)
				p.Version, p.MRConfigID, p.MRTD = version, [48]byte{1, 2}, [48]byte{3, 4}
				e, err := open(t, p).Collect(t.Context(), someData(t))
				if err != nil {
					t.Fatal(err)
				}
				st, err := verify.Evidence(evidence.TDX, e.Data, verify.Options{TDXRoots: p.Roots()})
				if err != nil {
					t.Fatal(err)
				}
				if st.ReportData != someData(t).Padded() || st.Measurement != p.MRTD || [48]byte(st.InitData) != p.MRConfigID {
					t.Errorf("evidence says %+v", st)
				}
				if !bytes.Contains(e.Data, []byte(`"cc_eventlog":null`)) {
					t.Error("a log without firmware that has one")
				}
			})
		}
	}
}

func TestTDXEventLog(t *testing.T) {
	p := evidencetest.NewTDX(t)
	g := tdxOnConfigfs(t, p)
	area := evidencetest.Fixture(t, "eventlog/ccel_data.dat.gz")
	put(t, g.host.root, ccel, area)
	events, used, err := measure.CCEL(area)
	if err != nil {
		t.Fatal(err)
	}
	if p.RTMR, err = measure.Replay(events); err != nil {
		t.Fatal(err)
	}
	e, err := g.Collect(t.Context(), someData(t))
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Log string `json:"cc_eventlog"`
	}
	if err := json.Unmarshal(e.Data, &got); err != nil {
		t.Fatal(err)
	}
	log, err := base64.StdEncoding.DecodeString(got.Log)
	if err != nil || !bytes.Equal(log, append(bytes.Clone(used), bytes.Repeat([]byte{0xff}, 8)...)) {
		t.Errorf("%d bytes of log, %v, want the used %d and a mark", len(log), err, len(used))
	}
	if st, err := verify.Evidence(evidence.TDX, e.Data, verify.Options{TDXRoots: p.Roots()}); err != nil || st.Events != len(events) {
		t.Errorf("verify: %+v, %v", st, err)
	}
	put(t, g.host.root, ccel, area[:len(used)-1])
	if _, err := g.Collect(t.Context(), someData(t)); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a log without an end: %v", err)
	}
}

func TestMRConfigID(t *testing.T) {
	p := evidencetest.NewTDX(t)
	p.MRConfigID = [48]byte{1, 2, 3}
	g := tdxOnDevice(t, p)
	if got, err := g.LaunchAnchor(t.Context()); err != nil || [48]byte(got) != p.MRConfigID {
		t.Errorf("from the device: %x, %v", got, err)
	}
	put(t, g.host.root, "sys/devices/virtual/misc/tdx_guest/measurements/mrconfigid", bytes.Repeat([]byte{5}, 48))
	if got, err := g.LaunchAnchor(t.Context()); err != nil || !bytes.Equal(got, bytes.Repeat([]byte{5}, 48)) {
		t.Errorf("from sysfs: %x, %v", got, err)
	}
	// A quote would show it, but is the host's word.
	if got, err := tdxOnConfigfs(t, p).LaunchAnchor(t.Context()); err == nil {
		t.Errorf("neither device nor sysfs, and yet %x", got)
	}
}

func TestTDXRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		edit  func(*evidencetest.TDX)
		fault string
	}{
		"version 3":         {func(p *evidencetest.TDX) { p.Version = 3 }, "version 3"},
		"SGX":               {func(p *evidencetest.TDX) { p.Edit = func(q []byte) { q[4] = 0 } }, "TEE type 0x0"},
		"other report data": {func(p *evidencetest.TDX) { p.Edit = func(q []byte) { q[48+520] ^= 1 } }, "report data"},
		"no answer":         {func(p *evidencetest.TDX) { p.Fault = unix.ETIMEDOUT }, "timed out"},
	} {
		t.Run(name, func(t *testing.T) {
			p := evidencetest.NewTDX(t)
			c.edit(p)
			if e, err := tdxOnConfigfs(t, p).Collect(t.Context(), someData(t)); err == nil || !strings.Contains(err.Error(), c.fault) {
				t.Errorf("Collect = %s, %v", e.Data, err)
			}
		})
	}
}

func TestQGSRefusals(t *testing.T) {
	for name, answer := range map[string]func([]byte) []byte{
		"nothing":     func([]byte) []byte { return nil },
		"endless":     func([]byte) []byte { return []byte{0xff, 0xff, 0xff, 0xff} },
		"short":       func(q []byte) []byte { return evidencetest.QGSAnswer(q)[:100] },
		"error":       func(q []byte) []byte { a := evidencetest.QGSAnswer(q); a[4+12] = 1; return a },
		"other kind":  func(q []byte) []byte { a := evidencetest.QGSAnswer(q); a[4+4] = 3; return a },
		"id too long": func(q []byte) []byte { a := evidencetest.QGSAnswer(q); copy(a[4+16:], "\xff\xff\xff\xff"); return a },
	} {
		t.Run(name, func(t *testing.T) {
			p := evidencetest.NewTDX(t)
			g := tdxOnDevice(t, p)
			g.host.qgs = qgs(t, p, answer)
			if e, err := g.Collect(t.Context(), someData(t)); err == nil {
				t.Errorf("Collect = %s", e.Data)
			}
		})
	}
}

// TestCollectEndsWithItsContext leaves a host alone that does not answer.
func TestCollectEndsWithItsContext(t *testing.T) {
	p := evidencetest.NewTDX(t)
	g := tdxOnConfigfs(t, p)
	asked, answer := make(chan struct{}), make(chan struct{})
	g.host.reports.(*evidencetest.TSM).Sign = func(in [64]byte) ([]byte, []byte, error) {
		close(asked)
		<-answer
		return p.Sign(in)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := g.Collect(ctx, evidence.ReportData{})
		done <- err
	}()
	<-asked
	cancel()
	if err := <-done; err == nil {
		t.Error("no error")
	}
	if _, err := g.Collect(ctx, evidence.ReportData{}); err == nil {
		t.Error("a second caller got the turn of the first")
	}
	close(answer)
}
