package tee

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-sev-guest/client/linuxabi"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/verify"
)

// onDevice is a guest whose kernel has only the ioctl interface.
func onDevice(t *testing.T, p *evidencetest.SNP) *snpGuest {
	t.Helper()
	h := host{root: t.TempDir(), reports: &evidencetest.TSM{}, openSNP: func(string) (snpDevice, error) { return p, nil }}
	return &snpGuest{host: h, turn: newTurn()}
}

// onConfigfs is a guest whose kernel has the report interface.
func onConfigfs(t *testing.T, p *evidencetest.SNP) *snpGuest {
	t.Helper()
	h := host{root: t.TempDir(), reports: &evidencetest.TSM{Provider: "sev_guest", Sign: p.Sign}}
	h.openSNP = func(string) (snpDevice, error) { return nil, os.ErrNotExist }
	return &snpGuest{host: h, turn: newTurn()}
}

func someData(t *testing.T) evidence.ReportData {
	t.Helper()
	rd, err := evidence.NewReportData(bytes.Repeat([]byte{7}, 48))
	if err != nil {
		t.Fatal(err)
	}
	return rd
}

func snpOptions(p *evidencetest.SNP) verify.Options {
	root, between := p.Roots()
	return verify.Options{SNPRoots: []verify.SNPChain{{Product: "Milan", Kind: "VCEK", Root: root, Between: between}}}
}

func TestSNPEvidence(t *testing.T) {
	for name, open := range map[string]func(*testing.T, *evidencetest.SNP) *snpGuest{"ioctl": onDevice, "configfs": onConfigfs} {
		for _, version := range []uint32{3, 4, 5} {
			t.Run(name, func(t *testing.T) {
				p := evidencetest.NewSNP(t)
				p.Version, p.HostData, p.Measurement = version, [32]byte{1, 2}, [48]byte{3, 4}
				g := open(t, p)
				for range 3 {
					e, err := g.Collect(t.Context(), someData(t))
					if err != nil {
						t.Fatal(err)
					}
					st, err := verify.Evidence(evidence.SNP, e.Data, snpOptions(p))
					if err != nil {
						t.Fatal(err)
					}
					if st.ReportData != someData(t).Padded() || st.Measurement != p.Measurement || [32]byte(st.InitData) != p.HostData || st.Debug {
						t.Errorf("evidence says %+v", st)
					}
					if strings.Contains(string(e.Data), "OTHER") {
						t.Error("a certificate of an unknown kind was sent")
					}
				}
				if name == "ioctl" && p.Extended != 1 {
					t.Errorf("the host was asked %d times for certificates", p.Extended)
				}
				anchor, err := g.LaunchAnchor(t.Context())
				if err != nil || [32]byte(anchor) != p.HostData {
					t.Errorf("LaunchAnchor = %x, %v", anchor, err)
				}
			})
		}
	}
}

// TestSNPFirmwareReplaced sees that certificates of the old firmware are not
// sent along with a report of the new one.
func TestSNPFirmwareReplaced(t *testing.T) {
	p := evidencetest.NewSNP(t)
	g := onDevice(t, p)
	collect := func() evidence.Evidence {
		e, err := g.Collect(t.Context(), someData(t))
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	collect()
	p.Edit = func(r []byte) { r[0x186] = 9 } // the version of the SNP firmware
	collect()
	collect()
	if p.Extended != 2 {
		t.Errorf("the host was asked %d times for certificates, want once for each firmware", p.Extended)
	}
}

func TestSNPWithoutCertificates(t *testing.T) {
	for name, open := range map[string]func(*testing.T, *evidencetest.SNP) *snpGuest{"ioctl": onDevice, "configfs": onConfigfs} {
		t.Run(name, func(t *testing.T) {
			p := evidencetest.NewSNP(t)
			p.NoCerts = true
			e, err := open(t, p).Collect(t.Context(), someData(t))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(e.Data, []byte(`"cert_chain":null`)) {
				t.Errorf("evidence is %s", e.Data)
			}
		})
	}
}

// refusing is a device whose host refuses extended requests.
type refusing struct{ *evidencetest.SNP }

func (r refusing) Ioctl(command uintptr, request any) (uintptr, error) {
	if command == linuxabi.IocSnpGetExtendedReport {
		return 0, unix.EIO
	}
	return r.SNP.Ioctl(command, request)
}

func TestSNPHostRefusesCertificates(t *testing.T) {
	p := evidencetest.NewSNP(t)
	g := onDevice(t, p)
	g.host.openSNP = func(string) (snpDevice, error) { return refusing{p}, nil }
	if _, err := g.Collect(t.Context(), someData(t)); err != nil {
		t.Errorf("a report without certificates: %v", err)
	}
}

func TestSNPRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		edit  func(*evidencetest.SNP)
		class func(error) bool
		fault string
	}{
		"version 2": {func(p *evidencetest.SNP) { p.Version = 2 }, errdefs.IsFailedPrecondition, "version 2"},
		"version 6": {func(p *evidencetest.SNP) { p.Version = 6 }, errdefs.IsNotImplemented, "version 6"},
		"VMPL 1":    {func(p *evidencetest.SNP) { p.VMPL = 1 }, errdefs.IsFailedPrecondition, "VMPL 1"},
		"other report data": {func(p *evidencetest.SNP) {
			p.Edit = func(r []byte) { r[0x50] ^= 1 }
		}, errdefs.IsDataLoss, "report data"},
		"unknown processor": {func(p *evidencetest.SNP) {
			p.Edit = func(r []byte) { r[0x188] = 0x1b }
		}, errdefs.IsNotImplemented, "family 0x1b"},
		"unknown content": {func(p *evidencetest.SNP) {
			p.Edit = func(r []byte) { r[0x210] = 1 }
		}, errdefs.IsNotImplemented, "0x208"},
		"no answer": {func(p *evidencetest.SNP) { p.Fault = unix.EIO }, func(err error) bool { return errors.Is(err, unix.EIO) }, "ask the SNP device"},
	} {
		t.Run(name, func(t *testing.T) {
			p := evidencetest.NewSNP(t)
			c.edit(p)
			e, err := onDevice(t, p).Collect(t.Context(), someData(t))
			if err == nil || !c.class(err) || !strings.Contains(err.Error(), c.fault) {
				t.Errorf("Collect = %s, %v", e.Data, err)
			}
		})
	}
}

// TestSNPLikeTrustee writes the JSON of a report that Trustee recorded, from
// the bytes of the report.
func TestSNPLikeTrustee(t *testing.T) {
	recorded := evidencetest.Fixture(t, "snp/evidence-genoa-trustee.json")
	raw, certs, err := verify.Decompose(recorded)
	if err != nil {
		t.Fatal(err)
	}
	st := statement{report: snpReport(raw), chain: []snpCert{{Type: "VCEK"}}}
	for _, b := range certs.VEK {
		st.chain[0].Data = append(st.chain[0].Data, uint16(b))
	}
	got, err := st.encode([64]byte(raw[0x50:]))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.TrimSpace(string(recorded)), string(got)); diff != "" {
		t.Errorf("byte for byte (-recorded +got):\n%s", diff)
	}
}

// TestTurin sees the other layout of a TCB.
func TestTurin(t *testing.T) {
	p := evidencetest.NewSNP(t)
	p.Edit = func(r []byte) {
		copy(r[0x188:], []byte{0x1a, 2, 1})
		copy(r[0x180:], []byte{1, 2, 3, 4, 0, 0, 0, 5})
	}
	e, err := onDevice(t, p).Collect(t.Context(), someData(t))
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Report struct {
			TCB json.RawMessage `json:"reported_tcb"`
		} `json:"attestation_report"`
	}
	if err := json.Unmarshal(e.Data, &got); err != nil || string(got.Report.TCB) != `{"fmc":1,"bootloader":2,"tee":3,"snp":4,"microcode":5}` {
		t.Errorf("reported_tcb = %s, %v", got.Report.TCB, err)
	}
}
