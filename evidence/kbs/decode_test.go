package kbs

import (
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coffer-cc/coffer/evidence"
)

func token(claims string) []byte {
	return []byte(`{"token":"e30.` + base64.RawURLEncoding.EncodeToString([]byte(claims)) + `.c2ln"}`)
}

func TestJudgeToken(t *testing.T) {
	tests := []struct {
		name string
		kind evidence.Kind
		body []byte
		life time.Duration
		want error
	}{
		{"trustee", evidence.TDX, token(`{"iss":"CoCo-Attestation-Service","iat":1000,"exp":1300}`), 5 * time.Minute, nil},
		{"no times", evidence.TDX, token(`{}`), 0, nil},
		{"expired before issued", evidence.TDX, token(`{"iat":1000,"exp":1}`), 0, nil},
		{"endless", evidence.TDX, token(`{"iat":1,"exp":1e300}`), 0, nil},
		{"development broker for sample", evidence.Sample, token(`{"iss":"coffer-devkbs","iat":1,"exp":61}`), time.Minute, nil},
		{"development broker for tdx", evidence.TDX, token(`{"iss":"coffer-devkbs"}`), 0, ErrIssuer},
		{"development broker for snp", evidence.SNP, token(`{"iss":"coffer-devkbs"}`), 0, ErrIssuer},
		{"no object", evidence.TDX, []byte(`[]`), 0, ErrReply},
		{"no token", evidence.TDX, []byte(`{}`), 0, ErrReply},
		{"two parts", evidence.TDX, []byte(`{"token":"e30.e30"}`), 0, ErrReply},
		{"not base64", evidence.TDX, []byte(`{"token":"a.*.b"}`), 0, ErrReply},
		{"claims are a list", evidence.TDX, token(`[]`), 0, ErrReply},
		{"issuer is a number", evidence.TDX, token(`{"iss":1}`), 0, ErrReply},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, life, err := judgeToken(tt.body, tt.kind)
			if life != tt.life || !errors.Is(err, tt.want) {
				t.Errorf("judgeToken = %v, %v, want %v, %v", life, err, tt.life, tt.want)
			}
		})
	}
}

func TestParseChallenge(t *testing.T) {
	tests := []struct {
		name, body, want string // "" for a reply to be refused
	}{
		{"trustee", `{"nonce":"AAAA","extra-params":""}`, "AAAA"},
		{"object", `{"nonce":"AAAA","extra-params":{"selected-hash-algorithm":"sha512"}}`, "AAAA"},
		{"json in the nonce", `{"nonce":"{\"a\":1}","extra-params":""}`, `{"a":1}`},
		{"no nonce", `{"extra-params":""}`, ""},
		{"number", `{"nonce":1}`, ""},
		{"new line", `{"nonce":"a\nb"}`, ""},
		{"not ascii", `{"nonce":"ä"}`, ""},
		{"too long", `{"nonce":"` + strings.Repeat("a", maxNonce+1) + `"}`, ""},
		{"no json", `<html>`, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ch, err := parseChallenge([]byte(tt.body), evidence.Sample)
			if tt.want == "" {
				if !errors.Is(err, ErrReply) {
					t.Errorf("parseChallenge = %+v, %v, want ErrReply", ch, err)
				}
			} else if err != nil || ch.Nonce != tt.want {
				t.Errorf("parseChallenge = %+v, %v, want %s", ch, err, tt.want)
			}
		})
	}
}

// The challenge of Secure Execution is a request in JSON, longer than a nonce
// and hashed with another algorithm.
func TestParseSEChallenge(t *testing.T) {
	long := strings.Repeat("a", maxSERequest)
	if ch, err := parseChallenge([]byte(`{"nonce":"`+long+`"}`), evidence.SE); err != nil || ch.Nonce != long || ch.unselected != "sha512" {
		t.Errorf("%d characters, hashed with %q, %v", len(ch.Nonce), ch.unselected, err)
	}
	if _, err := parseChallenge([]byte(`{"nonce":"`+long+`a"}`), evidence.SE); !errors.Is(err, ErrReply) {
		t.Errorf("one more: %v", err)
	}
}

func TestRefusal(t *testing.T) {
	tests := []struct {
		name   string
		status int
		body   string
		want   error
		text   string
	}{
		{"denied", 401, `{"type":"` + errorPrefix + `PolicyDeny","detail":"secret"}`, ErrDenied, "policy/denied: kbs policy denies the resource"},
		{"missing", 401, `{"type":"` + errorPrefix + `PluginInternalError"}`, ErrNotFound, "resource/absent: kbs has no such resource"},
		{"no token", 401, `{"type":"` + errorPrefix + `TokenNotFound"}`, ErrSession, "verdict/session: kbs rejects its own session"},
		{"old token", 401, `{"type":"` + errorPrefix + `TokenVerifierError"}`, ErrSession, "verdict/session: kbs rejects its own session"},
		{"attestation", 401, `{"type":"` + errorPrefix + `AttestationError"}`, ErrAttestation, "verdict/refused: kbs refuses the attestation"},
		{"no plugin", 404, `{"type":"` + errorPrefix + `PluginNotFound"}`, ErrNotFound, "resource/absent: kbs has no such resource"},
		{"key", 401, `{"type":"` + errorPrefix + `JweError"}`, ErrWrap, "resource/wrap: kbs cannot wrap for this key algorithm"},
		{"path", 404, `{"type":"` + errorPrefix + `InvalidRequestPath"}`, ErrFault, "transport/reply: kbs reports a fault: InvalidRequestPath, which the configured URL may cause"},
		{"policy engine", 401, `{"type":"` + errorPrefix + `PolicyEngineError"}`, ErrFault, "policy/broken: kbs reports a fault: PolicyEngineError, so its own policy is broken"},
		{"policy text", 401, `{"type":"` + errorPrefix + `ParsePolicyError"}`, ErrFault, "policy/broken: kbs reports a fault: ParsePolicyError, so its own policy is broken"},
		{"other", 401, `{"type":"` + errorPrefix + `SerdeError"}`, ErrFault, "verdict/fault: kbs reports a fault: SerdeError"},
		{"foreign type", 401, `{"type":"http://evil/PolicyDeny"}`, ErrFault, "transport/reply: kbs reports a fault: status 401"},
		{"noisy type", 401, `{"type":"` + errorPrefix + `a\nb"}`, ErrFault, "transport/reply: kbs reports a fault: status 401"},
		{"long type", 401, `{"type":"` + errorPrefix + strings.Repeat("a", 99) + `"}`, ErrFault, "transport/reply: kbs reports a fault: status 401"},
		{"proxy", 401, `<html>secret`, ErrFault, "transport/reply: kbs reports a fault: status 401"},
		{"redirect", 302, ``, ErrFault, "transport/reply: kbs reports a fault: status 302"},
		{"bad gateway", 502, `<html>`, ErrUnreachable, "transport/busy: kbs unreachable: status 502"},
		{"too busy", 429, ``, ErrUnreachable, "transport/busy: kbs unreachable: status 429"},
		{"too large", http.StatusRequestEntityTooLarge, ``, ErrFault, "transport/reply: kbs reports a fault: status 413"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := refusal(tt.status, []byte(tt.body)); !errors.Is(err, tt.want) || err.Error() != tt.text {
				t.Errorf("refusal = %v, want %s", err, tt.text)
			}
		})
	}
}
