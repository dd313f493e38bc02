package evidencetest_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/verify"
)

// TestMachineInAFile sees that the platform that comes out of a file signs as
// the one that went in, and for the same guest.
func TestMachineInAFile(t *testing.T) {
	for name, m := range map[string]evidencetest.Machine{
		"snp": {Provider: "sev_guest", SNP: evidencetest.NewSNP(t)},
		"tdx": {TDXGuest: true, TDX: evidencetest.NewTDX(t)},
	} {
		t.Run(name, func(t *testing.T) {
			var p evidencetest.Platform = m.SNP
			if m.TDX != nil {
				m.TDX.RTMR[2][7] = 9
				p = m.TDX
			}
			measurement := [48]byte{1, 2, 47: 3}
			p.Launch(measurement, bytes.Repeat([]byte{7}, 48))
			text, err := json.Marshal(&m)
			if err != nil {
				t.Fatal(err)
			}
			var there evidencetest.Machine
			if err := json.Unmarshal(text, &there); err != nil {
				t.Fatal(err)
			}
			in := [64]byte{5, 63: 6}
			st, err := verifyReport(t, &there, in, p.Trust())
			if err != nil {
				t.Fatal(err)
			}
			if st.ReportData != in || st.Measurement != measurement || st.InitData[31] != 7 || m.TDX != nil && st.RTMR != m.TDX.RTMR {
				t.Errorf("the report says %+v", st)
			}
		})
	}
}

func verifyReport(t *testing.T, m *evidencetest.Machine, in [64]byte, trust verify.Options) (*verify.Statement, error) {
	t.Helper()
	report, table, err := m.Report(in)
	if err != nil {
		t.Fatal(err)
	}
	if m.TDX != nil {
		return verify.Quote(report, trust)
	}
	if !bytes.Equal(table, m.SNP.Table()) {
		t.Error("there is another table of certificates")
	}
	return verify.Report(report, verify.Certs{VEK: m.SNP.VCEK().Raw}, trust)
}
