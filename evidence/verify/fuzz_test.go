package verify_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/measure"
	"github.com/coffer-cc/coffer/evidence/verify"
)

// The fuzzer cannot sign, so whatever is accepted has to say what it said
// before it was changed.

func FuzzQuote(f *testing.F) {
	genuine := map[[48]byte]bool{}
	for _, c := range quotes {
		raw := evidencetest.Fixture(f, c.file)
		st, err := verify.Quote(raw, verify.Options{Now: day(c.at)})
		if err != nil {
			f.Fatal(err)
		}
		genuine[st.Measurement] = true
		f.Add(raw)
	}
	now := verify.Options{Now: day("2026-06-15")}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if st, err := verify.Quote(raw, now); err == nil && !genuine[st.Measurement] {
			t.Errorf("accepted a forged quote: %+v", st)
		}
	})
}

func FuzzReport(f *testing.F) {
	genuine := map[[48]byte]bool{}
	for _, c := range reports {
		raw := evidencetest.Fixture(f, c.file)[c.skip:]
		raw = raw[:1184]
		vek := der(f, c.vek)
		st, err := verify.Report(raw, verify.Certs{VEK: vek}, verify.Options{Now: day(c.at)})
		if err != nil {
			f.Fatal(err)
		}
		genuine[st.Measurement] = true
		f.Add(raw, vek)
	}
	now := verify.Options{Now: day("2025-06-15")}
	f.Fuzz(func(t *testing.T, raw, vek []byte) {
		if st, err := verify.Report(raw, verify.Certs{VEK: vek}, now); err == nil && !genuine[st.Measurement] {
			t.Errorf("accepted a forged report: %+v", st)
		}
	})
}

// tdxStatement is a quote with the log that replays to its registers, shortened
// to what is written of it.
func tdxStatement(t testing.TB) []byte {
	t.Helper()
	area := evidencetest.Fixture(t, "eventlog/ccel_data.dat.gz")
	_, used, err := measure.CCEL(area)
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(map[string][]byte{
		"quote": evidencetest.Fixture(t, "eventlog/cos-113-tdx-quote.dat"), "cc_eventlog": area[:len(used)+8],
	})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func FuzzEvidence(f *testing.F) {
	now := verify.Options{Now: day("2026-01-15")}
	quote, err := json.Marshal(map[string][]byte{"quote": evidencetest.Fixture(f, "tdx/tdx_quote_5.dat")})
	if err != nil {
		f.Fatal(err)
	}
	genuine := map[string]bool{}
	said := func(st *verify.Statement) string {
		return fmt.Sprintf("%s %x %x %x", st.TEE, st.Measurement, st.InitData, st.ReportData)
	}
	for _, c := range []struct {
		kind evidence.Kind
		data []byte
	}{
		{evidence.SNP, evidencetest.Fixture(f, "snp/evidence-genoa-trustee.json")}, {evidence.TDX, tdxStatement(f)}, {evidence.TDX, quote},
	} {
		st, err := verify.Evidence(c.kind, c.data, now)
		if err != nil {
			f.Fatal(err)
		}
		genuine[said(st)] = true
		f.Add(string(c.kind), c.data)
	}
	f.Add(string(evidence.TDX), []byte(`{"cc_eventlog":"AAAA","quote":"BAACAIEAAAA="}`))
	f.Fuzz(func(t *testing.T, kind string, data []byte) {
		st, err := verify.Evidence(evidence.Kind(kind), data, now)
		if err == nil && !st.HostControlled && !genuine[said(st)] {
			t.Errorf("accepted forged evidence: %+v", st)
		}
	})
}
