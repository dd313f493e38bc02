package devkbs_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/devkbs"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/initdata"
	"github.com/coffer-cc/coffer/evidence/verify"
)

const document = "version = \"0.1.0\"\nalgorithm = \"sha256\"\n[data]\n\"policy.rego\" = \"package agent_policy\"\n"

var documentDigest = sha256.Sum256([]byte(document))

// vtpm is a guest whose initdata is in PCR 8.
type vtpm struct {
	evidence.Collector
	tpm   *evidencetest.TPM
	trust verify.Options
}

func vtpms(t *testing.T) map[string]vtpm {
	snp, tdx := evidencetest.NewAzureSNP(t), evidencetest.NewAzureTDX(t)
	root, between := snp.SNP.Roots()
	rsa, ecdsa := evidencetest.NewTPM(t, false), evidencetest.NewTPM(t, true)
	all := map[string]vtpm{
		"Azure SNP":        {snp, snp.TPM, verify.Options{SNPRoots: []verify.SNPChain{{Product: "Milan", Kind: "VCEK", Root: root, Between: between}}}},
		"Azure TDX":        {tdx, tdx.TPM, verify.Options{TDXRoots: tdx.TDX.Roots()}},
		"TPM with RSA":     {rsa, rsa, verify.Options{}},
		"TPM with a curve": {ecdsa, ecdsa, verify.Options{}},
	}
	for _, v := range all {
		v.tpm.Extend(8, documentDigest)
	}
	return all
}

// attested goes through the handshake, and asks for a resource.
func (v vtpm) attested(t *testing.T, rules string, edit func(map[string]any)) string {
	t.Helper()
	parsed, err := devkbs.ParseRules([]byte(rules))
	if err != nil {
		t.Fatal(err)
	}
	if rules == "" {
		parsed = nil
	}
	s := newServer(t, func(o *devkbs.Options) { o.Verify, o.Rules = v.trust, parsed })
	g := guestOn(t, s, fmt.Sprintf(`{"version":"0.4.0","tee":%q,"extra-params":""}`, v.Kind()))
	st := g.statement()
	inner := st["tee-evidence"].(map[string]any)
	rd, err := evidence.NewReportData(inner["primary_evidence"].(map[string]any)["report_data"].([]byte))
	if err != nil {
		t.Fatal(err)
	}
	e, err := v.Collect(context.Background(), rd)
	if err != nil {
		t.Fatal(err)
	}
	inner["primary_evidence"] = e.Data
	st["init-data"] = map[string]any{"format": "toml", "body": document}
	if edit != nil {
		edit(st)
	}
	return g.served(st)
}

// served attests and asks for a resource, once for the session and once for the
// token, which have to open the same doors.
func (g *guest) served(statement map[string]any) string {
	w := g.attest(statement)
	var verdict struct{ Token string }
	if w.Code != 200 {
		return w.Body.String()
	}
	if err := json.Unmarshal(w.Body.Bytes(), &verdict); err != nil {
		g.t.Fatal(err)
	}
	w = do(g.server, "GET", "resource/default/key/1", g.cookie, "")
	r := httptest.NewRequest("GET", "/kbs/v0/resource/default/key/1", nil)
	r.Header.Set("Authorization", "Bearer "+verdict.Token)
	byToken := httptest.NewRecorder()
	g.server.ServeHTTP(byToken, r)
	if byToken.Code != w.Code {
		g.t.Errorf("the session is answered with %d, its token with %d %s", w.Code, byToken.Code, byToken.Body)
	}
	return fmt.Sprint(w.Code)
}

// TestUnboundByToken has a guest whose initdata nobody vouches for come back
// with the token that it got.
func TestUnboundByToken(t *testing.T) {
	for rule, want := range map[string]string{
		"initdata = [\"%x\"]\n":                     "401",
		"initdata = [\"%x\"]\nunbound = true\n":     "200",
		"tee = [\"sample\"]\ninitdata = [\"%x\"]\n": "401",
		"debug = true\ninitdata = [\"%[1]x\"]\n":    "401",
	} {
		parsed, err := devkbs.ParseRules(fmt.Appendf(nil, "[[resource]]\npath = \"*/*/*\"\n"+rule, documentDigest))
		if err != nil {
			t.Fatal(err)
		}
		g := newGuest(t, newServer(t, func(o *devkbs.Options) { o.Rules = parsed }))
		st := g.statement()
		st["init-data"] = map[string]any{"format": "toml", "body": document}
		if got := g.served(st); got != want {
			t.Errorf("%s: %s, want %s", rule, got, want)
		}
	}
}

// TestHostsTPMByToken is a TPM of which nobody knows the key, against a rule
// that asks for nothing.
func TestHostsTPMByToken(t *testing.T) {
	for name, v := range vtpms(t) {
		want := "200"
		if v.Kind() == evidence.TPM {
			want = "401"
		}
		if got := v.attested(t, "[[resource]]\npath = \"*/*/*\"\ndebug = true\n", nil); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// TestVTPM is the whole handshake with each kind of TPM.
func TestVTPM(t *testing.T) {
	digest, err := initdata.Digest("sha256", []byte(document))
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range vtpms(t) {
		t.Run(name, func(t *testing.T) {
			plain := v.Kind() == evidence.TPM
			rule := fmt.Sprintf("[[resource]]\npath = \"*/*/*\"\ntee = [%q]\ninitdata = [\"%x\"]\npcr = { 8 = \"%x\", 0 = \"%064x\" }\n", v.Kind(), digest, v.tpm.PCR[8], 0)
			pin := ""
			if plain {
				pin = fmt.Sprintf("ak = [\"%x\"]\nunbound = true\n", sha256.Sum256(v.tpm.Key()))
				if got := v.attested(t, rule+strings.Replace(pin, "unbound = true", "", 1), nil); got != "401" {
					t.Errorf("initdata on the word of the host's own TPM: %s", got)
				}
			}
			if got := v.attested(t, rule+pin, nil); got != "200" {
				t.Errorf("all that is asked for fits: %s", got)
			}
			if got := v.attested(t, "", nil); (got == "200") == plain {
				t.Errorf("without rules: %s", got)
			}
			if got := v.attested(t, rule, nil); (got == "200") == plain {
				t.Errorf("without the key: %s", got)
			}
			if got := v.attested(t, strings.Replace(rule, fmt.Sprintf("%064x", 0), strings.Repeat("ab", 32), 1)+pin, nil); got != "401" {
				t.Errorf("another PCR: %s", got)
			}
			if got := v.attested(t, rule+"ak = [\""+strings.Repeat("ab", 32)+"\"]\n", nil); got != "401" {
				t.Errorf("another key: %s", got)
			}
			for reason, edit := range map[string]func(map[string]any){
				"init-data is not what": func(st map[string]any) { st["init-data"].(map[string]any)["body"] = document + "\n" },
				"not signed by":         func(st map[string]any) { flipSignature(t, st) },
				"different from":        func(st map[string]any) { st["tee-evidence"].(map[string]any)["primary_evidence"] = collect(t, v, 47) },
			} {
				if got := v.attested(t, rule+pin, edit); !strings.Contains(got, reason) {
					t.Errorf("got %s, want %q", got, reason)
				}
			}
		})
	}
}

// collect asks for evidence with other report data.
func collect(t *testing.T, v vtpm, size int) json.RawMessage {
	rd, err := evidence.NewReportData(make([]byte, size))
	if err != nil {
		t.Fatal(err)
	}
	e, err := v.Collect(context.Background(), rd)
	if err != nil {
		t.Fatal(err)
	}
	return e.Data
}

// flipSignature changes a bit of the quote's signature, in hex or in base64.
func flipSignature(t *testing.T, st map[string]any) {
	inner := st["tee-evidence"].(map[string]any)
	var e map[string]any
	if err := json.Unmarshal(inner["primary_evidence"].(json.RawMessage), &e); err != nil {
		t.Fatal(err)
	}
	quote := e["tpm_quote"].(map[string]any)
	text := []byte(quote["signature"].(string))
	if _, err := hex.DecodeString(string(text)); err == nil {
		text[40] = "123456789abcdef0"[strings.IndexByte("0123456789abcdef", text[40])]
	} else if text[40] == 'A' {
		text[40] = 'B'
	} else {
		text[40] = 'A'
	}
	quote["signature"] = string(text)
	inner["primary_evidence"] = e
}
