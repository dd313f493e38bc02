package verify_test

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-sev-guest/verify/trust"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/initdata"
	"github.com/coffer-cc/coffer/evidence/measure"
	"github.com/coffer-cc/coffer/evidence/verify"
)

// TestEveryFixture says of every recorded file what is known of it, so that
// none lies there that nothing holds to be true or false.
func TestEveryFixture(t *testing.T) {
	known := map[string]func(*testing.T, []byte){
		"initdata.img": func(t *testing.T, b []byte) {
			if doc, err := initdata.DecodeDisk(bytes.NewReader(b), 1<<20); err != nil || string(doc) != "some content" {
				t.Errorf("%q, %v", doc, err)
			}
		},
		"tdx/report.dat": func(t *testing.T, b []byte) {
			if len(b) != 1024 {
				t.Errorf("%d bytes", len(b))
			}
			if f, err := verify.Open(b); err == nil {
				t.Errorf("a TDREPORT, which no key signed, is taken for %s", f.Form)
			}
		},
		"eventlog/ccel_table.dat": func(t *testing.T, b []byte) {
			if !bytes.HasPrefix(b, []byte("CCEL")) || b[36] != 2 || binary.LittleEndian.Uint64(b[40:]) != 262144 {
				t.Errorf("table %x", b)
			}
		},
		"eventlog/nonce.dat": func(t *testing.T, b []byte) {
			st, err := verify.Quote(evidencetest.Fixture(t, "eventlog/cos-113-tdx-quote.dat"), thisJanuary)
			if err != nil || !st.Carries(b) {
				t.Errorf("the quote is not bound to it: %v", err)
			}
		},
		"eventlog/ccel_data.dat.gz": loggedEvents(43),
		"eventlog/CCEL_data_gcp.gz": loggedEvents(21),
	}
	for _, c := range quotes {
		known[c.file] = func(t *testing.T, b []byte) { genuine(t, b, verify.Certs{}, verify.Options{Now: day(c.at)}) }
	}
	for _, c := range reports {
		known[c.file] = func(t *testing.T, b []byte) {
			genuine(t, b[c.skip:c.skip+1184], verify.Certs{VEK: der(t, c.vek)}, verify.Options{Now: day(c.at)})
		}
		known[c.vek] = func(t *testing.T, _ []byte) {
			genuine(t, evidencetest.Fixture(t, c.file)[c.skip:c.skip+1184], verify.Certs{VEK: der(t, c.vek)}, verify.Options{Now: day(c.at)})
		}
	}
	for _, c := range azures {
		known["azure/"+c.file] = func(t *testing.T, b []byte) { genuine(t, b, verify.Certs{}, thisJanuary) }
	}
	for log, reading := range readings {
		known["eventlog/"+log] = func(t *testing.T, b []byte) {
			if _, err := verify.Log(append(b, bytes.Repeat([]byte{0xff}, 8)...)); err != nil {
				t.Error(err)
			}
		}
		known["eventlog/"+reading] = func(*testing.T, []byte) {} // what TestLogReadings compares with
	}
	known["snp/evidence-genoa-trustee.json"] = func(t *testing.T, b []byte) { genuine(t, b, verify.Certs{}, thisJanuary) }
	for _, name := range []string{"snp/test-vcek-invalid-legacy.der", "snp/test-vcek-invalid-new.der"} {
		known[name] = func(t *testing.T, b []byte) {
			if _, err := verify.Report(evidencetest.Fixture(t, "snp/test-report.bin"), verify.Certs{VEK: b}, thisJanuary); err == nil {
				t.Error("vouches for a report")
			}
		}
	}
	addChains(known)
	addAzureParts(known)
	for _, name := range []string{"tdx/pckcrl", "tdx/rootcrl.der", "tdx/sample_tcbInfo_response", "tdx/sample_qeIdentity_response"} {
		known[name] = func(t *testing.T, b []byte) {
			if err := new(verify.Collateral).Add(b); err != nil { // TestCollateral judges by it
				t.Error(err)
			}
		}
	}
	for _, name := range []string{"cca/cca-example-token.cbor", "cca/cca-token-draft-ffm-00.cbor"} {
		known[name] = func(t *testing.T, b []byte) { // realms are judged elsewhere
			if _, err := verify.Evidence(evidence.CCA, b, thisJanuary); !errdefs.IsNotImplemented(err) {
				t.Errorf("got %v", err)
			}
		}
	}
	for _, name := range evidencetest.Fixtures(t) {
		check := known[name]
		if check == nil {
			t.Errorf("%s is forgotten", name)
			continue
		}
		delete(known, name)
		t.Run(name, func(t *testing.T) { check(t, evidencetest.Fixture(t, name)) })
	}
	for name := range known {
		t.Errorf("%s is gone", name)
	}
}

func genuine(t *testing.T, b []byte, certs verify.Certs, o verify.Options) {
	t.Helper()
	f, err := verify.Open(b)
	if err != nil {
		t.Fatal(err)
	}
	st, err := f.Verify(certs, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"debug", "tcb_status", "smt"} {
		if fact(st, name) == "" {
			t.Errorf("%s is omitted", name)
		}
	}
}

func loggedEvents(want int) func(*testing.T, []byte) {
	return func(t *testing.T, b []byte) {
		if events, _, err := measure.CCEL(b); err != nil || len(events) != want {
			t.Errorf("%d events, %v", len(events), err)
		}
	}
}

// addChains holds AMD's chains against those that the library carries, which
// this package trusts.
func addChains(known map[string]func(*testing.T, []byte)) {
	for name, bundle := range map[string][]byte{
		"ask_ark_milan.pem": trust.AskArkMilanVcekBytes, "milan.testcer": trust.AskArkMilanVcekBytes, "milan_ask_ark_asvk.pem": trust.AskArkMilanVcekBytes,
		"ask_ark_milan_vlek.pem": trust.AskArkMilanVlekBytes, "milanvlek.testcer": trust.AskArkMilanVlekBytes,
		"ask_ark_genoa.pem": trust.AskArkGenoaVcekBytes, "genoa_ask_ark_asvk.pem": trust.AskArkGenoaVcekBytes, "ask_ark_genoa_vlek.pem": trust.AskArkGenoaVlekBytes,
		"ask_ark_turin_vcek.pem": trust.AskArkTurinVcekBytes, "turin_ask_ark_asvk.pem": trust.AskArkTurinVcekBytes, "ask_ark_turin_vlek.pem": trust.AskArkTurinVlekBytes,
	} {
		known["snp/"+name] = func(t *testing.T, b []byte) {
			got, want := blocks(b), blocks(bundle)
			for kind, der := range want {
				if !bytes.Equal(got[kind], der) {
					t.Errorf("%s is another certificate than the one that is trusted", kind)
				}
			}
			if len(want) != 2 {
				t.Errorf("%d certificates", len(want))
			}
		}
	}
	known["azure/az-snp-vtpm/vcek-genoa.pem"] = func(t *testing.T, b []byte) {
		block, _ := pem.Decode(b)
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		ask, err := x509.ParseCertificate(blocks(trust.AskArkGenoaVcekBytes)["SEV-Genoa"])
		if err != nil || c.CheckSignatureFrom(ask) != nil {
			t.Errorf("not signed by the ASK of Genoa: %v", err)
		}
	}
}

// blocks are the certificates of a PEM text by their names.
func blocks(text []byte) map[string][]byte {
	all := map[string][]byte{}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			all[c.Subject.CommonName] = block.Bytes
		}
	}
	return all
}

// addAzureParts joins the parts of Azure's evidence that were recorded one by
// one. The SNP report among them has version 2, which is refused by name after
// all else was found genuine.
func addAzureParts(known map[string]func(*testing.T, []byte)) {
	for kind, refusal := range map[evidence.Kind]string{evidence.AzSNP: "report version 2 is too old", evidence.AzTDX: ""} {
		dir := "azure/" + string(kind) + "/"
		joined := func(t *testing.T, _ []byte) {
			url := base64.URLEncoding.EncodeToString
			e := map[string]any{
				"version": 1, "tpm_quote": json.RawMessage(evidencetest.Fixture(t, dir+"tpm-quote-v1.json")),
				"hcl_report": url(evidencetest.Fixture(t, dir+"hcl-report.bin")),
			}
			if kind == evidence.AzTDX {
				e["td_quote"] = url(evidencetest.Fixture(t, dir+"td-quote.bin"))
			} else {
				e["vcek"] = url(der(t, dir+"vcek.pem"))
			}
			data, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			_, err = verify.Evidence(kind, data, thisJanuary)
			if refusal == "" && err != nil || refusal != "" && (err == nil || !strings.Contains(err.Error(), refusal)) {
				t.Errorf("got %v, want %q", err, refusal)
			}
		}
		known[dir+"tpm-quote-v1.json"] = joined
		if kind == evidence.AzTDX {
			known[dir+"hcl-report.bin"] = joined
		}
		known[dir+"quote.bin"] = func(t *testing.T, b []byte) {
			var q struct{ Signature, Message string }
			if err := json.Unmarshal(evidencetest.Fixture(t, dir+"tpm-quote-v1.json"), &q); err != nil {
				t.Fatal(err)
			}
			// An older form of the same quote: length, signature, length, message.
			if same := unhex(t, q.Signature); !bytes.Equal(b[8:264], same) || !bytes.Equal(b[272:394], unhex(t, q.Message)) {
				t.Error("not the quote beside it")
			}
		}
	}
	// The key of this quote was not recorded.
	single := func(t *testing.T, _ []byte) {
		var claims struct{ Keys []struct{ N string } }
		report := evidencetest.Fixture(t, "azure/az-snp-vtpm/hcl-report.bin")[1236:]
		if err := json.NewDecoder(bytes.NewReader(report)).Decode(&claims); err != nil {
			t.Fatal(err)
		}
		n, err := base64.RawURLEncoding.DecodeString(claims.Keys[0].N)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(evidencetest.Fixture(t, "azure/az-snp-vtpm/tpm-quote.msg"))
		key := &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: 65537}
		if err := rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], evidencetest.Fixture(t, "azure/az-snp-vtpm/tpm-quote.sig")); err == nil {
			t.Error("the key of another machine vouches for it")
		}
	}
	known["azure/az-snp-vtpm/tpm-quote.msg"], known["azure/az-snp-vtpm/tpm-quote.sig"] = single, single
}
