package verify_test

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence/evidencetest"
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

func FuzzOpen(f *testing.F) {
	f.Add(evidencetest.Fixture(f, "tdx/tdx_quote_5.dat"))
	f.Add(evidencetest.Fixture(f, "snp/evidence-genoa-trustee.json"))
	f.Add([]byte("eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJtZSJ9.AAAA"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		if file, err := verify.Open(data); err == nil {
			_, _ = file.Describe()
			_, _ = file.Log()
		}
	})
}
