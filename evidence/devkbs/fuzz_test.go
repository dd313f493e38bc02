package devkbs_test

import (
	"bytes"
	"crypto/elliptic"
	"crypto/mlkem"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
)

// constantKeys are public keys of each kind, whose private ones nobody needs.
func constantKeys(f *testing.F) []map[string]string {
	f.Helper()
	text := base64.RawURLEncoding.EncodeToString
	var keys []map[string]string
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P521()} {
		p := curve.Params() // the base point is a public key
		size := (p.BitSize + 7) / 8
		keys = append(keys, map[string]string{
			"kty": "EC", "crv": p.Name, "alg": "ECDH-ES+A256KW",
			"x": text(p.Gx.FillBytes(make([]byte, size))), "y": text(p.Gy.FillBytes(make([]byte, size))),
		})
	}
	kem, err := mlkem.NewDecapsulationKey768(make([]byte, mlkem.SeedSize))
	if err != nil {
		f.Fatal(err)
	}
	return append(keys,
		map[string]string{"kty": "RSA", "alg": "RSA-OAEP-256", "n": text(bytes.Repeat([]byte{0xff}, 256)), "e": "AQAB"},
		map[string]string{"kty": "AKP", "alg": "ML-KEM-768+A192KW", "pub": text(kem.EncapsulationKey().Bytes())})
}

var fuzzedKinds = []evidence.Kind{evidence.Sample, evidence.TDX, evidence.SNP, evidence.AzSNP, evidence.AzTDX, evidence.TPM, evidence.CCA, evidence.SE}

// bound puts what belongs to the session into a text of the fuzzer: NONCE, and
// DIGEST and DEVICE for the hashes over nonce and key, with and without the
// evidence of devices. That is all that a genuine guest would do.
func (g *guest) bound(text, key []byte, devices string) []byte {
	var members map[string]string
	if json.Unmarshal(key, &members) != nil {
		members = nil
	}
	digest := func(m map[string]any) string {
		m["nonce"], m["tee-pubkey"] = g.nonce, members
		b, err := json.Marshal(m)
		if err != nil {
			g.t.Fatal(err)
		}
		sum := sha512.Sum384(b)
		return base64.StdEncoding.EncodeToString(sum[:])
	}
	replaced := strings.NewReplacer("NONCE", g.nonce, "DIGEST", digest(map[string]any{"additional-evidence": devices}), "DEVICE", digest(map[string]any{}))
	return []byte(replaced.Replace(string(text)))
}

// FuzzAttest sends statements that only lack what the session has to put in.
// None is attested that does not carry the digest over nonce and key.
func FuzzAttest(f *testing.F) {
	const runtime, sample = `"NONCE"`, `{"svn":"1","report_data":"DIGEST"}`
	initdata := `{"format":"toml","body":` + fmt.Sprintf("%q", document) + `}`
	for _, members := range constantKeys(f) {
		key, err := json.Marshal(members)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(0), []byte(runtime), key, []byte(sample), []byte("null"), "")
		f.Add(byte(0), []byte(runtime), key, []byte(sample), []byte(initdata), `{"sampledevice":{"svn":"2","report_data":"DEVICE"}}`)
		f.Add(byte(0), []byte(runtime), bytes.Replace(key, []byte(`":"`), []byte(`":"A`), 3), []byte(sample), []byte("null"), "")
		f.Add(byte(0), []byte(`"AAAA"`), key, []byte(sample), []byte("null"), `{"gpu":{}}`)
	}
	key, err := json.Marshal(constantKeys(f)[0])
	if err != nil {
		f.Fatal(err)
	}
	quote := fmt.Sprintf(`{"quote":%q}`, base64.StdEncoding.EncodeToString(evidencetest.Fixture(f, "tdx/tdx_quote_4.dat")))
	for i, primary := range []string{`{}`, quote, string(evidencetest.Fixture(f, "snp/evidence-genoa-trustee.json")), string(evidencetest.Fixture(f, "azure/az-snp-vtpm/evidence-v2.json")),
		string(evidencetest.Fixture(f, "azure/az-tdx-vtpm/evidence-v1.json")), `{}`, `{"token":[1]}`, `{}`} {
		f.Add(byte(i), []byte(runtime), key, []byte(primary), []byte(initdata), "")
	}
	f.Fuzz(func(t *testing.T, kind byte, nonce, key, primary, initdata []byte, devices string) {
		s := newServer(t, plain)
		g := guestOn(t, s, fmt.Sprintf(`{"version":"0.4.0","tee":%q,"extra-params":""}`, fuzzedKinds[int(kind)%len(fuzzedKinds)]))
		devices = string(g.bound([]byte(devices), key, ""))
		additional, err := json.Marshal(devices)
		if err != nil {
			t.Fatal(err)
		}
		body := fmt.Sprintf(`{"runtime-data":{"nonce":%s,"tee-pubkey":%s},"tee-evidence":{"primary_evidence":%s,"additional_evidence":%s},"init-data":%s}`,
			g.bound(nonce, key, devices), key, g.bound(primary, key, devices), additional, g.bound(initdata, key, devices))
		w := do(s, "POST", "attest", g.cookie, body)
		if !json.Valid(w.Body.Bytes()) {
			t.Fatalf("attest = %d %s", w.Code, w.Body)
		}
		if w.Code != 200 {
			return
		}
		if kind%byte(len(fuzzedKinds)) != 0 || !bytes.Contains([]byte(body), []byte(g.nonce)) || !bytes.Contains(primary, []byte("DIGEST")) {
			t.Fatalf("attested by %s", body)
		}
		if w := do(s, "GET", "resource/default/key/1", g.cookie, ""); !json.Valid(w.Body.Bytes()) {
			t.Fatalf("resource = %d %s", w.Code, w.Body)
		}
	})
}
