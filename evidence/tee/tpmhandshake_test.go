package tee

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/kbs"
)

var sha256Text = strings.Replace(document, "sha384", "sha256", 1)

// bootedTPM is a guest whose document was extended, and the name of its key.
func bootedTPM(t *testing.T) (g guestUnderTest, ak string) {
	t.Helper()
	guest, _ := openGuestTPM(t)
	digest := sha256.Sum256([]byte(sha256Text))
	if err := guest.ExtendAnchor(t.Context(), digest); err != nil {
		t.Fatal(err)
	}
	e, err := guest.Collect(t.Context(), someData(t))
	if err != nil {
		t.Fatal(err)
	}
	var public struct {
		Key []byte `json:"ak_public"`
	}
	if err := json.Unmarshal(e.Data, &public); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(public.Key)
	return guestUnderTest{collector: guest}, hex.EncodeToString(sum[:])
}

func tpmClient(t *testing.T, g guestUnderTest, broker *evidencetest.KBS) *kbs.Client {
	t.Helper()
	c, err := kbs.New(kbs.Config{URL: broker.URL, Collector: g.collector, InitData: []byte(sha256Text), Backoff: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A key goes to the TPM that its owner knows, and not where anything else was
// measured into it.
func TestTPMHandshake(t *testing.T) {
	g, ak := bootedTPM(t)
	rule := func(more string) string {
		return fmt.Sprintf("[[resource]]\npath = \"*/*/*\"\ntee = [\"tpm\"]\nak = [%q]\n", ak) + more
	}
	b, err := tpmClient(t, g, brokerFor(t, g, rule(""))).Resource(t.Context(), uri(t))
	if err != nil || string(b) != keyText {
		t.Fatalf("Resource = %v, %v", b, err)
	}
	zeros := strings.Repeat("00", 32)
	for what, rules := range map[string]string{
		"no key named":    "[[resource]]\npath = \"*/*/*\"\ntee = [\"tpm\"]\n",
		"key of another":  fmt.Sprintf("[[resource]]\npath = \"*/*/*\"\nak = [%q]\n", zeros),
		"wrong initdata":  rule(fmt.Sprintf("initdata = [%q]\n", zeros)),
		"wrong PCR":       rule(fmt.Sprintf("pcr = { 8 = %q }\n", zeros)),
		"for another TEE": "[[resource]]\npath = \"*/*/*\"\ntee = [\"snp\"]\n",
	} {
		if b, err := tpmClient(t, g, brokerFor(t, g, rules)).Resource(t.Context(), uri(t)); !errors.Is(err, kbs.ErrDenied) {
			t.Errorf("%s: %v, %v", what, b, err)
		}
	}
	// Once more, and PCR 8 is no longer the document's.
	if err := g.collector.(*tpmGuest).ExtendAnchor(t.Context(), [32]byte{}); err != nil {
		t.Fatal(err)
	}
	if b, err := tpmClient(t, g, brokerFor(t, g, rule(""))).Resource(t.Context(), uri(t)); !errors.Is(err, kbs.ErrAttestation) {
		t.Errorf("extended twice: %v, %v", b, err)
	}
}

// As TestEveryBitCounts. A change of the key alone makes another TPM, which has
// not signed.
func TestTPMEveryBitCounts(t *testing.T) {
	g, ak := bootedTPM(t)
	broker := brokerFor(t, g, fmt.Sprintf("[[resource]]\npath = \"*/*/*\"\nak = [%q]\n", ak))
	statement, cookie := capture(t, tpmClient(t, g, broker), broker)
	var body map[string]any
	if err := json.Unmarshal(statement, &body); err != nil {
		t.Fatal(err)
	}
	flips := tpmFlips(body)
	for _, what := range slices.Sorted(maps.Keys(flips)) {
		for i, change := range flips[what] {
			change(body)
			changed, err := json.Marshal(body)
			if err != nil {
				t.Fatal(err)
			}
			change(body) // and back
			if code := judged(t, broker, changed, cookie); code != http.StatusUnauthorized {
				t.Fatalf("%s: change %d is answered with %d", what, i, code)
			}
		}
		t.Logf("%s: %d changes refused", what, len(flips[what]))
	}
	if code := judged(t, broker, statement, cookie); code != http.StatusOK {
		t.Errorf("the statement as it was is answered with %d", code)
	}
}

// judged is the broker's answer to a statement.
func judged(t *testing.T, broker *evidencetest.KBS, body []byte, cookie string) int {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/kbs/v0/attest", bytes.NewReader(body))
	req.Header.Set("Cookie", cookie)
	answer := httptest.NewRecorder()
	broker.ServeHTTP(answer, req)
	return answer.Code
}

func tpmFlips(body map[string]any) map[string][]flip {
	flips := map[string][]flip{}
	quote := []string{"tee-evidence", "primary_evidence", "tpm_quote"}
	for name, at := range map[string][]string{"message": quote, "signature": quote, "ak_public": quote[:2]} {
		raw, err := base64.StdEncoding.DecodeString(dig(body, at...)[name].(string))
		if err != nil {
			panic(err)
		}
		for bit := range 8 * len(raw) {
			flips[name] = append(flips[name], func(body map[string]any) {
				changed := slices.Clone(raw)
				if m := dig(body, at...); m[name] == base64.StdEncoding.EncodeToString(raw) {
					changed[bit/8] ^= 1 << (bit % 8)
					m[name] = base64.StdEncoding.EncodeToString(changed)
				} else {
					m[name] = base64.StdEncoding.EncodeToString(raw)
				}
			})
		}
	}
	for name, at := range map[string][]string{"nonce": {"runtime-data"}, "x": {"runtime-data", "tee-pubkey"}, "body": {"init-data"}} {
		for bit := range 7 * 32 {
			flips[name] = append(flips[name], func(body map[string]any) {
				m := dig(body, at...)
				b := []byte(m[name].(string))
				b[bit/7] ^= 1 << (bit % 7)
				m[name] = string(b)
			})
		}
	}
	for bit := range 24 * 32 * 8 {
		flips["pcrs"] = append(flips["pcrs"], func(body map[string]any) {
			pcrs := dig(body, quote...)["pcrs"].([]any)
			v, err := hex.DecodeString(pcrs[bit/256].(string))
			if err != nil {
				panic(err)
			}
			v[bit%256/8] ^= 1 << (bit % 8)
			pcrs[bit/256] = hex.EncodeToString(v)
		})
	}
	return flips
}
