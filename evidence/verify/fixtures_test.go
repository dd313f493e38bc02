package verify_test

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	snpabi "github.com/google/go-sev-guest/abi"
	snplib "github.com/google/go-sev-guest/verify"
	tdxabi "github.com/google/go-tdx-guest/abi"
	tdx "github.com/google/go-tdx-guest/proto/tdx"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/measure"
	"github.com/coffer-cc/coffer/evidence/verify"
)

func day(text string) time.Time {
	t, err := time.Parse(time.DateOnly, text)
	if err != nil {
		panic(err)
	}
	return t
}

// quotes are all of hardware, with a time at which their certificates are valid.
var quotes = []struct {
	file     string
	at       string
	version  uint16
	debug    bool
	fmspc    string
	configID string // beginning of MRCONFIGID
}{
	{"tdx/tdx_prod_quote_SPR_E4.dat", "2026-01-15", 4, false, "50806f000000", "0000"},
	{"tdx/tdx_quote_4.dat", "2026-01-15", 4, true, "50806f000000", "0000"},
	{"tdx/tdx_quote_5.dat", "2026-01-15", 5, false, "90c06f000000", ""},
	{"tdx/tdx_quote_6.dat", "2026-01-15", 4, false, "00a06d080000", "889abf47"},
	{"tdx/quote_v5_sample.dat", "2026-06-15", 5, false, "90c06f000000", ""},
	{"eventlog/cos-113-tdx-quote.dat", "2026-01-15", 4, false, "00806f050000", ""},
	{"azure/az-tdx-vtpm/td-quote.bin", "2026-01-15", 4, false, "00806f050000", ""},
}

func TestRecordedQuotes(t *testing.T) {
	for _, c := range quotes {
		t.Run(c.file, func(t *testing.T) {
			raw := evidencetest.Fixture(t, c.file)
			st, err := verify.Quote(raw, verify.Options{Now: day(c.at)})
			if err != nil {
				t.Fatal(err)
			}
			if st.TEE != evidence.TDX || st.Debug != c.debug || !strings.HasPrefix(hex.EncodeToString(st.InitData), c.configID) {
				t.Errorf("got %+v", st)
			}
			if got := fact(st, "fmspc"); got != c.fmspc {
				t.Errorf("fmspc = %s", got)
			}
			if _, err := verify.Quote(raw, verify.Options{Now: day("2045-01-01")}); !errdefs.IsUnauthorized(err) {
				t.Errorf("after its certificates expired: %v", err)
			}
			stranger := evidencetest.NewTDX(t)
			if _, err := verify.Quote(raw, verify.Options{Now: day(c.at), TDXRoots: stranger.Roots()}); !errdefs.IsUnauthorized(err) {
				t.Errorf("under another root: %v", err)
			}
		})
	}
}

// TestQuoteOffsets compares what is read here with the library's reading of
// every quote that it can read.
func TestQuoteOffsets(t *testing.T) {
	read := 0
	for _, c := range quotes {
		raw := evidencetest.Fixture(t, c.file)
		pb, err := tdxabi.QuoteToProto(raw)
		if err != nil {
			if c.version == 4 {
				t.Errorf("%s: %v", c.file, err)
			}
			continue
		}
		read++
		v4 := pb.(interface {
			GetTdQuoteBody() *tdx.TDQuoteBody
		}).GetTdQuoteBody()
		st, err := verify.Quote(raw, verify.Options{Now: day(c.at)})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(v4.GetMrTd(), st.Measurement[:]) || !bytes.Equal(v4.GetMrConfigId(), st.InitData) || !bytes.Equal(v4.GetReportData(), st.ReportData[:]) {
			t.Errorf("%s is read differently", c.file)
		}
		for i, r := range v4.GetRtmrs() {
			if !bytes.Equal(r, st.RTMR[i][:]) {
				t.Errorf("%s: RTMR %d is read differently", c.file, i)
			}
		}
	}
	if read != 5 {
		t.Errorf("the library reads %d quotes, want the 5 of version 4", read)
	}
}

func TestRecordedEventLog(t *testing.T) {
	events, used, err := measure.CCEL(evidencetest.Fixture(t, "eventlog/ccel_data.dat.gz"))
	if err != nil {
		t.Fatal(err)
	}
	rtmr, err := measure.Replay(events)
	if err != nil {
		t.Fatal(err)
	}
	st, err := verify.Quote(evidencetest.Fixture(t, "eventlog/cos-113-tdx-quote.dat"), verify.Options{Now: day("2026-01-15")})
	if err != nil {
		t.Fatal(err)
	}
	if len(events) != 43 || rtmr != st.RTMR {
		t.Errorf("%d events in %d bytes replay to\n%x, the quote has\n%x", len(events), len(used), rtmr, st.RTMR)
	}
}

// reports are all of hardware.
var reports = []struct {
	name, file, vek string
	skip            int // bytes before the report
	at              string
	format          string
	library         bool // the library's signature check reads it as well
}{
	{"go-sev-guest", "snp/attestation.bin", "snp/vcek.testcer", 0, "2026-01-15", "report version 2, Milan", true},
	{"Trustee, VCEK", "snp/test-report.bin", "snp/test-vcek.der", 0, "2026-01-15", "report version 2, Milan", true},
	{"Trustee, VLEK", "snp/test-vlek-report.bin", "snp/test-vlek.der", 0, "2025-06-15", "report version 3, Milan", true},
	{"Azure", "azure/az-snp-vtpm/hcl-report.bin", "azure/az-snp-vtpm/vcek.pem", 32, "2026-01-15", "report version 2, Milan", true},
}

// der returns the first certificate of a file in either form.
func der(t testing.TB, file string) []byte {
	b := evidencetest.Fixture(t, file)
	if block, _ := pem.Decode(b); block != nil {
		return block.Bytes
	}
	return b
}

func TestRecordedReports(t *testing.T) {
	for _, c := range reports {
		t.Run(c.name, func(t *testing.T) {
			raw := evidencetest.Fixture(t, c.file)[c.skip:]
			raw = raw[:1184]
			certs := verify.Certs{VEK: der(t, c.vek)}
			st, err := verify.Report(raw, certs, verify.Options{Now: day(c.at)})
			if err != nil {
				t.Fatal(err)
			}
			if st.Format != c.format || fact(st, "smt") == "" || fact(st, "reported_tcb") == "" || fact(st, "debug") == "" {
				t.Errorf("got %+v", st)
			}
			cert, err := x509.ParseCertificate(certs.VEK)
			if err != nil {
				t.Fatal(err)
			}
			if err := snplib.SnpReportSignature(raw, cert); err != nil {
				t.Errorf("the library does not agree: %v", err)
			}
			pb, err := snpabi.ReportToProto(raw)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(pb.GetMeasurement(), st.Measurement[:]) || !bytes.Equal(pb.GetHostData(), st.InitData) || !bytes.Equal(pb.GetReportData(), st.ReportData[:]) {
				t.Error("the library reads it differently")
			}
			if _, err := verify.Report(raw, certs, verify.Options{Now: day("2055-01-01")}); !errdefs.IsUnauthorized(err) {
				t.Errorf("after the certificate expired: %v", err)
			}
			if _, err := verify.Report(raw, verify.Certs{}, verify.Options{}); !errdefs.IsNotFound(err) {
				t.Errorf("without a certificate: %v", err)
			}
		})
	}
}

func TestWrongCertificates(t *testing.T) {
	raw := evidencetest.Fixture(t, "snp/test-report.bin")
	now := verify.Options{Now: day("2026-01-15")}
	for _, file := range []string{"snp/test-vcek-invalid-legacy.der", "snp/test-vcek-invalid-new.der", "snp/vcek.testcer"} {
		if _, err := verify.Report(raw, verify.Certs{VEK: evidencetest.Fixture(t, file)}, now); err == nil {
			t.Errorf("%s vouches for another report", file)
		}
	}
}

// TestTrusteeEvidence is of a processor that the libraries do not know by name.
func TestTrusteeEvidence(t *testing.T) {
	data := evidencetest.Fixture(t, "snp/evidence-genoa-trustee.json")
	st, err := verify.Evidence(evidence.SNP, data, verify.Options{Now: day("2026-01-15")})
	if err != nil {
		t.Fatal(err)
	}
	if st.Format != "report version 3, Genoa" || st.Debug {
		t.Errorf("got %+v", st)
	}
}

func fact(st *verify.Statement, name string) string {
	for _, f := range st.Facts {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}
