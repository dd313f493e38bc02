package verify_test

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	tdxabi "github.com/google/go-tdx-guest/abi"
	tdxtest "github.com/google/go-tdx-guest/testing"
	library "github.com/google/go-tdx-guest/verify"

	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/verify"
)

// recordedCollateral is Intel's of June 2023, whose issuer chains the library's
// tests carry as headers.
func recordedCollateral(t testing.TB, without string) *verify.Collateral {
	t.Helper()
	c := new(verify.Collateral)
	for _, name := range []string{"tdx/pckcrl", "tdx/rootcrl.der", "tdx/sample_tcbInfo_response", "tdx/sample_qeIdentity_response"} {
		if name == without {
			continue
		}
		if err := c.Add(evidencetest.Fixture(t, name)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	for name, header := range map[string]map[string][]string{"TCB": tdxtest.TcbInfoHeader, "CRL": tdxtest.PckCrlHeader, "QE": tdxtest.QeIdentityHeader} {
		for key, values := range header {
			if name != without {
				if err := c.Add([]byte("HTTP/1.1 200 OK\r\n" + key + ": " + values[0] + "\r\n\r\n{}")); err == nil {
					t.Error("an answer without content is taken")
				}
				if err := c.Add([]byte(key + ": " + values[0] + "\r\n")); err != nil {
					t.Fatalf("headers of %s: %v", name, err)
				}
			}
		}
	}
	return c
}

// TestCollateral holds quotes against Intel's own collateral, and asks the
// library as well.
func TestCollateral(t *testing.T) {
	all := recordedCollateral(t, "")
	at := verify.Options{Now: day("2023-07-01"), Collateral: all}
	raw := evidencetest.Fixture(t, "tdx/tdx_quote_4.dat")
	st, err := verify.Quote(raw, at)
	if err != nil {
		t.Fatal(err)
	}
	if st.TCBStatus != verify.UpToDate || fact(st, "tcb_status") != verify.UpToDate || fact(st, "tcb_date") != "2023-02-15T00:00:00Z" || fact(st, "tcb_evaluation") != "15" {
		t.Errorf("got %+v", st)
	}
	second := func(raw []byte) error {
		q, err := tdxabi.QuoteToProto(raw)
		if err != nil {
			t.Fatal(err)
		}
		return library.TdxQuote(q, &library.Options{Now: day("2023-07-01"), Getter: tdxtest.TestGetter, GetCollateral: true, CheckRevocations: true})
	}
	if err := second(raw); err != nil {
		t.Errorf("the library does not agree: %v", err)
	}
	// Known failures: the library's own sample is below every level, and the
	// collateral has a time.
	sample := evidencetest.Fixture(t, "tdx/tdx_prod_quote_SPR_E4.dat")
	if _, err := verify.Quote(sample, at); !errdefs.IsUnauthorized(err) || !strings.Contains(err.Error(), "below every TCB level") {
		t.Errorf("the library's sample: %v", err)
	}
	if err := second(sample); err == nil || !strings.Contains(err.Error(), "no matching TCB level found") {
		t.Errorf("the library of its sample: %v", err)
	}
	late := verify.Options{Now: day("2023-08-15"), Collateral: all}
	if _, err := verify.Quote(raw, late); !errdefs.IsUnauthorized(err) || !strings.Contains(err.Error(), "of another time") {
		t.Errorf("with collateral that has expired: %v", err)
	}
	other := verify.Options{Now: day("2023-07-01"), Collateral: all}
	if _, err := verify.Quote(evidencetest.Fixture(t, "eventlog/cos-113-tdx-quote.dat"), other); !errdefs.IsNotFound(err) && !errdefs.IsUnauthorized(err) {
		t.Errorf("of another family: %v", err)
	}
}

func TestCollateralMissing(t *testing.T) {
	raw := evidencetest.Fixture(t, "tdx/tdx_quote_4.dat")
	for name, want := range map[string]string{
		"tdx/pckcrl": `CRL of "Intel SGX PCK Platform CA"`, "tdx/rootcrl.der": `CRL of "Intel SGX Root CA"`,
		"tdx/sample_tcbInfo_response": "TCB info of TDX for FMSPC 50806f000000", "tdx/sample_qeIdentity_response": "identity of the quoting enclave",
	} {
		_, err := verify.Quote(raw, verify.Options{Now: day("2023-07-01"), Collateral: recordedCollateral(t, name)})
		if !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("without %s: %v", name, err)
		}
	}
	for _, data := range []string{"", "text", "{", "{}", `{"tcbInfo":{}}`, `{"a":[{"tcbInfo":{},"signature":"00"}]}`, strings.Repeat(`{"a":`, 20)} {
		if err := new(verify.Collateral).Add([]byte(data)); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", data, err)
		}
	}
}

// TestForgedCollateral changes a bit in each part of what Intel signed.
func TestForgedCollateral(t *testing.T) {
	raw := evidencetest.Fixture(t, "tdx/tdx_quote_4.dat")
	for _, c := range []struct{ name, from, to, want string }{
		{"tdx/sample_tcbInfo_response", `"pcesvn":11`, `"pcesvn":10`, "TCB info is not signed"},
		{"tdx/sample_tcbInfo_response", `"tcbStatus":"UpToDate"`, `"tcbStatus":"OutOfDate"`, "TCB info is not signed"},
		{"tdx/sample_qeIdentity_response", `"isvsvn":4`, `"isvsvn":3`, "quoting enclave is not signed"},
		{"tdx/pckcrl", "Intel Corporation", "Intel Corporatiom", "is missing"},
	} {
		collateral := recordedCollateral(t, c.name)
		changed := strings.Replace(string(evidencetest.Fixture(t, c.name)), c.from, c.to, 1)
		if err := collateral.Add([]byte(changed)); err != nil {
			t.Fatal(err)
		}
		_, err := verify.Quote(raw, verify.Options{Now: day("2023-07-01"), Collateral: collateral})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s with %s: %v", c.name, c.to, err)
		}
	}
}
