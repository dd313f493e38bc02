package verify_test

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	tdxtest "github.com/google/go-tdx-guest/testing"

	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/verify"
)

// TestCollateral holds quotes against Intel's collateral of June 2023, which
// the library's tests carry.
func TestCollateral(t *testing.T) {
	now := verify.Options{Now: day("2023-07-01"), Collateral: tdxtest.TestGetter}
	st, err := verify.Quote(evidencetest.Fixture(t, "tdx/tdx_quote_4.dat"), now)
	if err != nil {
		t.Fatal(err)
	}
	if fact(st, "tcb_status") != "UpToDate" {
		t.Errorf("tcb_status = %q", fact(st, "tcb_status"))
	}
	// Known failures: the library finds no level for its own sample, and the
	// collateral has a time.
	if _, err := verify.Quote(evidencetest.Fixture(t, "tdx/tdx_prod_quote_SPR_E4.dat"), now); err == nil || !strings.Contains(err.Error(), "no matching TCB level found") {
		t.Errorf("the library's sample: %v", err)
	}
	five := verify.Options{Now: day("2026-01-15"), Collateral: tdxtest.TestGetter}
	if _, err := verify.Quote(evidencetest.Fixture(t, "tdx/tdx_quote_5.dat"), five); !errdefs.IsNotImplemented(err) {
		t.Errorf("version 5: %v", err)
	}
	late := verify.Options{Now: day("2026-01-15"), Collateral: tdxtest.TestGetter}
	if _, err := verify.Quote(evidencetest.Fixture(t, "tdx/tdx_quote_4.dat"), late); !errdefs.IsUnauthorized(err) {
		t.Errorf("with collateral that has expired: %v", err)
	}
}

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
		{"token", verify.FormToken, []byte("eyJhbGciOiJub25lIn0.eyJpc3MiOiJtZSJ9.AAAA\n"), verify.Certs{}, false},
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
	for _, data := range []string{"", "{}", "{\"quote\"", "eyJ.a.b", strings.Repeat("\x00", 2000)} {
		if f, err := verify.Open([]byte(data)); err == nil {
			t.Errorf("%.20q is taken for %s", data, f.Form)
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(evidencetest.Fixture(f, "tdx/tdx_quote_5.dat"))
	f.Add(evidencetest.Fixture(f, "snp/evidence-genoa-trustee.json"))
	f.Add([]byte("eyJhbGciOiJub25lIn0.eyJpc3MiOiJtZSJ9.AAAA"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		if file, err := verify.Open(data); err == nil {
			_, _ = file.Describe()
		}
	})
}
