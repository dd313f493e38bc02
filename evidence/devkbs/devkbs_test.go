package devkbs_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/coffer-cc/coffer/evidence/devkbs"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
)

const errorPrefix = "https://github.com/confidential-containers/kbs/errors/"

func newServer(t testing.TB, change func(*devkbs.Options)) *devkbs.Server {
	t.Helper()
	o := devkbs.Options{
		AllowSample: true,
		Resources:   evidencetest.Resources(map[string]string{"default/key/1": "contents"}),
		Log:         slog.New(slog.DiscardHandler),
	}
	change(&o)
	s, err := devkbs.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func plain(*devkbs.Options) {}

// do sends one request and returns the reply.
func do(s http.Handler, method, path, cookie, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "/kbs/v0/"+path, strings.NewReader(body))
	if cookie != "" {
		r.Header.Set("Cookie", "kbs-session-id="+cookie)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

// guest goes through the protocol step by step, with its own derivation of
// everything, so that tests can go astray at any step.
type guest struct {
	t       testing.TB
	server  http.Handler
	private *ecdsa.PrivateKey
	jwk     map[string]string
	cookie  string
	nonce   string
}

const authBody = `{"version":"0.4.0","tee":"sample","extra-params":""}`

func newGuest(t testing.TB, s http.Handler) *guest {
	t.Helper()
	return guestOn(t, s, authBody)
}

func guestOn(t testing.TB, s http.Handler, auth string) *guest {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := k.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	enc := base64.RawURLEncoding
	g := &guest{t: t, server: s, private: k, jwk: map[string]string{
		"kty": "EC", "crv": "P-256", "alg": "ECDH-ES+A256KW",
		"x": enc.EncodeToString(point[1:33]), "y": enc.EncodeToString(point[33:]),
	}}
	w := do(s, "POST", "auth", "", auth)
	var ch struct {
		Nonce string
		Extra *string `json:"extra-params"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &ch); err != nil || w.Code != 200 || ch.Extra == nil || *ch.Extra != "" {
		t.Fatalf("auth = %d %s", w.Code, w.Body)
	}
	g.nonce = ch.Nonce
	g.cookie = w.Result().Cookies()[0].Value
	return g
}

// statement builds the body of an attestation that is right in every part.
func (g *guest) statement() map[string]any {
	text, _ := json.Marshal(map[string]any{"additional-evidence": "", "nonce": g.nonce, "tee-pubkey": g.jwk})
	digest := sha512.Sum384(text)
	return map[string]any{
		"runtime-data": map[string]any{"nonce": g.nonce, "tee-pubkey": g.jwk},
		"tee-evidence": map[string]any{
			"primary_evidence":    map[string]any{"svn": "1", "report_data": digest[:]},
			"additional_evidence": "",
		},
	}
}

func (g *guest) attest(st map[string]any) *httptest.ResponseRecorder {
	body, err := json.Marshal(st)
	if err != nil {
		g.t.Fatal(err)
	}
	return do(g.server, "POST", "attest", g.cookie, string(body))
}

func wantRefusal(t *testing.T, w *httptest.ResponseRecorder, status int, kind string) {
	t.Helper()
	var info struct{ Type, Detail string }
	if err := json.Unmarshal(w.Body.Bytes(), &info); err != nil || w.Code != status || info.Type != errorPrefix+kind {
		t.Errorf("reply = %d %s, want %d %s", w.Code, w.Body, status, kind)
	}
}

func TestHandshakeAndResource(t *testing.T) {
	s := newServer(t, plain)
	g := newGuest(t, s)
	if nonce, err := base64.StdEncoding.DecodeString(g.nonce); err != nil || len(nonce) != 32 || len(g.cookie) != 32 {
		t.Errorf("nonce %q, session %q", g.nonce, g.cookie)
	}
	wantRefusal(t, do(s, "GET", "resource/default/key/1", g.cookie, ""), 401, "TokenNotFound")
	w := g.attest(g.statement())
	var reply struct{ Token string }
	if err := json.Unmarshal(w.Body.Bytes(), &reply); err != nil || w.Code != 200 {
		t.Fatalf("attest = %d %s", w.Code, w.Body)
	}
	checkToken(t, reply.Token, g)
	if again := g.attest(map[string]any{}); again.Body.String() != w.Body.String() {
		t.Errorf("second attestation = %d %s, want the first token", again.Code, again.Body)
	}
	w = do(s, "GET", "resource/default/key/1", g.cookie, "")
	jwe, err := jose.ParseEncryptedJSON(w.Body.String(), []jose.KeyAlgorithm{jose.ECDH_ES_A256KW}, []jose.ContentEncryption{jose.A256GCM})
	if err != nil {
		t.Fatalf("resource = %d %s: %v", w.Code, w.Body, err)
	}
	if got, err := jwe.Decrypt(g.private); err != nil || string(got) != "contents" {
		t.Errorf("decrypted %q, %v", got, err)
	}
	s.ExpireSessions()
	wantRefusal(t, do(s, "GET", "resource/default/key/1", g.cookie, ""), 401, "TokenNotFound")
}

func checkToken(t *testing.T, token string, g *guest) {
	t.Helper()
	jws, err := jose.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	header := jws.Signatures[0].Header
	payload, err := jws.Verify(header.JSONWebKey)
	if err != nil {
		t.Fatalf("token: %v", err)
	}
	var claims struct {
		Iss      string
		Iat, Exp int64
		Submods  struct {
			CPU0 struct {
				Annotated struct {
					Runtime struct {
						Key map[string]string `json:"tee-pubkey"`
					} `json:"runtime_data_claims"`
				} `json:"ear.veraison.annotated-evidence"`
			}
		}
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	if claims.Iss != devkbs.Issuer || claims.Exp-claims.Iat != 300 || header.ExtraHeaders["typ"] != "JWT" {
		t.Errorf("token: %s", payload)
	}
	if got := claims.Submods.CPU0.Annotated.Runtime.Key; fmt.Sprint(got) != fmt.Sprint(g.jwk) {
		t.Errorf("key in the token = %v, want %v", got, g.jwk)
	}
}

func TestAuthRefusals(t *testing.T) {
	s := newServer(t, plain)
	for _, body := range []string{
		`{"version":"0.3.0","tee":"sample","extra-params":""}`,
		`{"version":"0.4.1","tee":"sample","extra-params":""}`,
		`{"tee":"sample","extra-params":""}`,
		`{"version":"0.4.0","extra-params":""}`,
		`{"version":"0.4.0","tee":"sample"}`,
		authBody + "x",
		`[]`, ``,
	} {
		wantRefusal(t, do(s, "POST", "auth", "", body), 401, "AttestationError")
	}
}

func TestAttestRefusals(t *testing.T) {
	part := func(st map[string]any, name string) map[string]any { return st[name].(map[string]any) }
	tests := []struct {
		name   string
		server func(*devkbs.Options)
		change func(*guest, map[string]any)
	}{
		{"other nonce", plain, func(_ *guest, st map[string]any) { part(st, "runtime-data")["nonce"] = "AAAA" }},
		{"nonce without padding", plain, func(g *guest, st map[string]any) {
			part(st, "runtime-data")["nonce"] = strings.TrimRight(g.nonce, "=")
		}},
		{"other key", plain, func(_ *guest, st map[string]any) {
			part(st, "runtime-data")["tee-pubkey"] = map[string]string{
				"kty": "EC", "crv": "P-256", "alg": "ECDH-ES+A256KW",
				"x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
			}
		}},
		{"member of the key that is hashed but dropped", plain, func(g *guest, st map[string]any) {
			g.jwk["kid"] = "x"
			evidence := g.statement()["tee-evidence"]
			st["tee-evidence"] = evidence
		}},
		{"key of another algorithm", plain, func(g *guest, _ map[string]any) { g.jwk["alg"] = "ECDH-ES" }},
		{"short coordinate", plain, func(g *guest, _ map[string]any) { g.jwk["x"] = g.jwk["x"][:40] }},
		{"point off the curve", plain, func(g *guest, _ map[string]any) { g.jwk["x"] = g.jwk["y"] }},
		{"padded report data", plain, func(_ *guest, st map[string]any) {
			quote := part(part(st, "tee-evidence"), "primary_evidence")
			quote["report_data"] = append(quote["report_data"].([]byte), make([]byte, 16)...)
		}},
		{"no report data", plain, func(_ *guest, st map[string]any) {
			delete(part(part(st, "tee-evidence"), "primary_evidence"), "report_data")
		}},
		{"no svn", plain, func(_ *guest, st map[string]any) {
			delete(part(part(st, "tee-evidence"), "primary_evidence"), "svn")
		}},
		{"no evidence", plain, func(_ *guest, st map[string]any) { delete(st, "tee-evidence") }},
		{"devices", plain, func(_ *guest, st map[string]any) { part(st, "tee-evidence")["additional_evidence"] = "{}" }},
		{"init-data of another format", plain, func(_ *guest, st map[string]any) {
			st["init-data"] = map[string]string{"format": "json", "body": "{}"}
		}},
		{"malformed init-data", plain, func(_ *guest, st map[string]any) {
			st["init-data"] = map[string]string{"format": "toml", "body": "version = 1"}
		}},
		{"session is gone", plain, func(g *guest, _ map[string]any) { g.cookie = "0" }},
		{"no session", plain, func(g *guest, _ map[string]any) { g.cookie = "" }},
		{"sample not allowed", func(o *devkbs.Options) { o.AllowSample = false }, func(*guest, map[string]any) {}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t, tt.server)
			g := newGuest(t, s)
			st := g.statement()
			tt.change(g, st)
			wantRefusal(t, g.attest(st), 401, "AttestationError")
			wantRefusal(t, do(s, "GET", "resource/default/key/1", g.cookie, ""), 401, "TokenNotFound")
		})
	}
}

func TestPlatformThatCannotBeVerified(t *testing.T) {
	s := newServer(t, plain)
	g := newGuest(t, s)
	w := do(s, "POST", "auth", "", strings.Replace(authBody, "sample", "tdx", 1))
	g.cookie = w.Result().Cookies()[0].Value
	var ch struct{ Nonce string }
	if err := json.Unmarshal(w.Body.Bytes(), &ch); err != nil {
		t.Fatal(err)
	}
	g.nonce = ch.Nonce
	wantRefusal(t, g.attest(g.statement()), 401, "AttestationError")
}

func TestResourceRefusals(t *testing.T) {
	s := newServer(t, plain)
	g := newGuest(t, s)
	if w := g.attest(g.statement()); w.Code != 200 {
		t.Fatal(w.Body)
	}
	tests := []struct {
		method, path string
		status       int
		kind         string
	}{
		{"GET", "resource/default/key/none", 401, "PluginInternalError"},
		{"GET", "resource/default/key", 401, "PluginInternalError"},
		{"GET", "resource/default/key/%2e%2e%2f1", 401, "PluginInternalError"},
		{"GET", "other/default/key/1", 404, "InvalidRequestPath"},
		{"POST", "resource/default/key/1", 404, "InvalidRequestPath"},
		{"GET", "auth", 404, "InvalidRequestPath"},
	}
	for _, tt := range tests {
		wantRefusal(t, do(s, tt.method, tt.path, g.cookie, ""), tt.status, tt.kind)
	}
	s.SetRefuse(true)
	wantRefusal(t, do(s, "GET", "resource/default/key/1", g.cookie, ""), 401, "PolicyDeny")
}

func TestBounds(t *testing.T) {
	s := newServer(t, plain)
	big := `{"version":"` + strings.Repeat("0", 3<<20) + `"}`
	if w := do(s, "POST", "auth", "", big); w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("body of 3 MiB: %d", w.Code)
	}
	first := newGuest(t, s)
	for range 1024 {
		do(s, "POST", "auth", "", authBody)
	}
	wantRefusal(t, first.attest(first.statement()), 401, "AttestationError")
	last := newGuest(t, s)
	if w := last.attest(last.statement()); w.Code != 200 {
		t.Errorf("newest of many sessions: %d %s", w.Code, w.Body)
	}
}
