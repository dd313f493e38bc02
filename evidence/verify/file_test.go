package verify_test

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/measure"
	"github.com/coffer-cc/coffer/evidence/verify"
)

func TestFiles(t *testing.T) {
	sev := evidencetest.Fixture(t, "snp/test-report.bin")
	for _, c := range []struct {
		name, form string
		data       []byte
		certs      verify.Certs
		judged     bool
	}{
		{"quote", verify.FormQuote, evidencetest.Fixture(t, "tdx/tdx_quote_5.dat"), verify.Certs{}, true},
		{"report", verify.FormReport, sev, verify.Certs{VEK: evidencetest.Fixture(t, "snp/test-vcek.der")}, true},
		{"evidence", verify.FormSNP, evidencetest.Fixture(t, "snp/evidence-genoa-trustee.json"), verify.Certs{}, true},
		{"log", verify.FormLog, evidencetest.Fixture(t, "eventlog/CCEL_data_ovmf.gz"), verify.Certs{}, false},
		{"token", verify.FormToken, []byte("eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJtZSJ9.AAAA\n"), verify.Certs{}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := verify.Open(c.data)
			if err != nil || f.Form != c.form {
				t.Fatalf("Open = %+v, %v", f, err)
			}
			said, err := f.Describe()
			if (err == nil) != (c.form != verify.FormToken) {
				t.Errorf("Describe: %v", err)
			}
			st, err := f.Verify(c.certs, verify.Options{Now: day("2026-01-15")})
			if !c.judged {
				if !errdefs.IsNotImplemented(err) {
					t.Errorf("Verify: %v", err)
				}
				return
			}
			if err != nil || st.Measurement != said.Measurement || st.Format != said.Format && c.name != "report" {
				t.Errorf("Verify = %+v, %v; Describe = %+v", st, err, said)
			}
		})
	}
	for _, data := range []string{"", "{}", "{\"quote\"", "eyJ.a.b", "eyJhbGciOiJub25lIn0.eyJpc3MiOiJtZSJ9.AAAA", strings.Repeat("\x00", 2000)} {
		if f, err := verify.Open([]byte(data)); err == nil {
			t.Errorf("%.20q is taken for %s", data, f.Form)
		}
	}
}

// FuzzOpen does with a file all that can be done with one. What is judged to be
// genuine says what it said when it was read.
func FuzzOpen(f *testing.F) {
	plain, err := evidencetest.NewTPM(f, true).Collect(f.Context(), evidence.ReportData{})
	if err != nil {
		f.Fatal(err)
	}
	area := recordedLog(f, "CCEL_data_ovmf.gz")
	_, used, err := measure.CCEL(area)
	if err != nil {
		f.Fatal(err)
	}
	for _, data := range [][]byte{
		tdxStatement(f), plain.Data, area[:len(used)+8], recordedLog(f, "CCEL_AAEL_alibabacloud.gz"),
		[]byte(constantSigner(f).sign(f, farAway(), nil)), []byte("eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJtZSJ9.AAAA"),
	} {
		f.Add(data)
	}
	for _, name := range []string{
		"tdx/tdx_quote_5.dat", "tdx/tdx_quote_4.dat", "snp/test-report.bin", "snp/evidence-genoa-trustee.json",
		"azure/az-snp-vtpm/evidence-v1.json", "azure/az-snp-vtpm/evidence-v2.json", "azure/az-tdx-vtpm/evidence-v1.json",
	} {
		f.Add(evidencetest.Fixture(f, name))
	}
	certs, now := verify.Certs{VEK: evidencetest.Fixture(f, "snp/test-vcek.der")}, verify.Options{Now: day("2026-01-15")}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := verify.Open(data)
		if err != nil {
			return
		}
		_, _ = file.Log()
		said, unread := file.Describe()
		st, err := file.Verify(certs, now)
		if err == nil && (unread != nil || st.Measurement != said.Measurement || st.TEE != file.Kind()) {
			t.Errorf("%s: read %+v, %v; judged %+v", file.Form, said, unread, st)
		}
	})
}
