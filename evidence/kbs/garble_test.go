package kbs_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coffer-cc/coffer/evidence/kbs"
)

// marker is in everything that the hostile broker says, and in no error.
const marker = "HOSTWORD"

// Bounds for one call, whatever a broker sends. The memory is that of the whole
// process, so the broker's own is in it.
const (
	callTime   = 30 * time.Second
	callMemory = 64 << 20
)

// shortTime is the time limit of a request that is not answered. A request
// that the busy machine makes late as well ends the same way.
const shortTime = 100 * time.Millisecond

// garble is one way to answer a request wrongly.
type garble struct {
	name   string
	answer http.HandlerFunc
	want   error
	text   string // end of the error
	tries  int    // of one caller
	silent bool   // ends by the client's time limit alone
}

// raw answers with bytes of its own in place of HTTP's, and closes the
// connection unless it is to stay until the client closes it.
func raw(stay bool, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, text)
		if stay {
			_, _ = io.Copy(io.Discard, conn)
		}
	}
}

// endless answers with a beginning and then the same piece for as long as the
// client reads. What it got rid of is in sent.
func endless(sent *atomic.Int64, begin, piece string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		many := strings.Repeat(piece, 1+(32<<10)/len(piece))
		n, err := io.WriteString(conn, begin)
		for err == nil {
			sent.Add(int64(n))
			n, err = io.WriteString(conn, many)
		}
	}
}

// said answers with a status, a header in pairs and a body.
func said(status int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func zipped(text string) string {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, _ = io.WriteString(z, text)
	_ = z.Close()
	return out.String()
}

const (
	ok        = "HTTP/1.1 200 OK\r\nX-Word: " + marker + "\r\n"
	chunked   = ok + "Transfer-Encoding: chunked\r\n\r\n"
	lost      = "kbs unreachable: connection failed"
	late      = "kbs unreachable: timed out"
	malformed = "kbs sent a malformed reply"
)

// garbles are what no reply of a broker looks like, to whatever request.
func garbles(sent *atomic.Int64) []garble {
	page := "<html>" + marker
	return []garble{
		{"nothing and silence", raw(true, ""), kbs.ErrUnreachable, late, 3, true},
		{"half a header and silence", raw(true, "HTTP/1.1 200 OK\r\nX-Word: "+marker), kbs.ErrUnreachable, late, 3, true},
		{"half a body and silence", raw(true, ok+"Content-Length: 99\r\n\r\n{\""+marker), kbs.ErrUnreachable, late, 3, true},
		{"a chunk and silence", raw(true, chunked+"2\r\n{\"\r\n"), kbs.ErrUnreachable, late, 3, true},
		{"continue and silence", raw(true, "HTTP/1.1 100 Continue\r\n\r\n"), kbs.ErrUnreachable, late, 3, true},
		{"closed at once", raw(false, ""), kbs.ErrUnreachable, lost, 3, false},
		{"closed in the header", raw(false, ok), kbs.ErrUnreachable, lost, 3, false},
		{"closed in the body", raw(false, ok+"Content-Length: 99\r\n\r\n{\""+marker), kbs.ErrUnreachable, lost, 3, false},
		{"no HTTP", raw(false, "SSH-2.0-"+marker+"\r\n"), kbs.ErrUnreachable, lost, 3, false},
		{"binary", raw(false, marker+strings.Repeat("\x00\xff\x16\x03", 99)), kbs.ErrUnreachable, lost, 3, false},
		{"status of four digits", raw(false, "HTTP/1.1 2000 "+marker+"\r\n\r\n"), kbs.ErrUnreachable, lost, 3, false},
		{"two lengths", raw(false, ok+"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}}"), kbs.ErrUnreachable, lost, 3, false},
		{"negative length", raw(false, ok+"Content-Length: -1\r\n\r\n{}"), kbs.ErrUnreachable, lost, 3, false},
		{"length of a petabyte", raw(false, ok+"Content-Length: 1125899906842624\r\n\r\n{}"), kbs.ErrUnreachable, lost, 3, false},
		{"chunk of no size", raw(false, chunked+marker+"\r\n"), kbs.ErrUnreachable, lost, 3, false},
		{"unknown encoding of transfer", raw(false, ok+"Transfer-Encoding: "+marker+"\r\n\r\n{}"), kbs.ErrUnreachable, lost, 3, false},
		{"HTTP/1.0 closed in the body", raw(false, "HTTP/1.0 200 OK\r\n\r\n{\"nonce\":\""+marker), kbs.ErrReply, "", 1, false},
		{"HTTP/1.0 shorter than it said", raw(false, "HTTP/1.0 200 OK\r\nContent-Length: 99\r\n\r\n{"), kbs.ErrUnreachable, lost, 3, false},
		{"HTTP/2", raw(false, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), kbs.ErrUnreachable, lost, 3, false},
		{"another protocol", raw(true, "HTTP/1.1 101 "+marker+"\r\nConnection: upgrade\r\nUpgrade: "+marker+"\r\n\r\n"), kbs.ErrFault, "status 101", 1, false},
		{"header without end", endless(sent, "HTTP/1.1 200 OK\r\n", "X-Word: "+marker+"\r\n"), kbs.ErrUnreachable, lost, 3, false},
		{"line without end", endless(sent, "HTTP/1.1 200 OK\r\nX-Word: ", marker), kbs.ErrUnreachable, lost, 3, false},
		{"status line without end", endless(sent, "HTTP/1.1 200 ", marker), kbs.ErrUnreachable, lost, 3, false},
		{"continue without end", endless(sent, "", "HTTP/1.1 100 Continue\r\nX-Word: "+marker+"\r\n\r\n"), kbs.ErrUnreachable, lost, 3, false},
		{"body without end", endless(sent, ok+"\r\n", marker), kbs.ErrReply, "too large", 1, false},
		{"chunks without end", endless(sent, chunked, "1\r\na\r\n"), kbs.ErrReply, "too large", 1, false},
		{"chunk's line without end", endless(sent, chunked+"1;", marker), kbs.ErrUnreachable, lost, 3, false},
		{"trailer without end", endless(sent, chunked+"2\r\n{}\r\n0\r\n", "X-Word: "+marker+"\r\n"), kbs.ErrUnreachable, lost, 3, false},
		{"error without end", endless(sent, "HTTP/1.1 401 No\r\n\r\n", marker), kbs.ErrReply, "too large", 1, false},
		{"empty", said(200, ""), kbs.ErrReply, "", 1, false},
		{"HTML", said(200, page, "Content-Type", "text/html"), kbs.ErrReply, "", 1, false},
		{"null", said(200, "null"), kbs.ErrReply, "", 1, false},
		{"list", said(200, `["`+marker+`"]`), kbs.ErrReply, "", 1, false},
		{"two values", said(200, `{"nonce":"a","token":"a.a.a"}{"`+marker+`":1}`), kbs.ErrReply, "", 1, false},
		{"deep", said(200, strings.Repeat(`{"a":`, 100<<10)), kbs.ErrReply, "", 1, false},
		{"brotli", said(200, marker, "Content-Encoding", "br"), kbs.ErrReply, "", 1, false},
		{"no content", said(204, ""), kbs.ErrFault, "status 204", 1, false},
		{"redirect", said(302, page, "Location", "/"+marker), kbs.ErrFault, "status 302", 1, false},
		{"redirect that keeps the body", said(307, page, "Location", "http://"+marker+".invalid/"), kbs.ErrFault, "status 307", 1, false},
		{"401 of a proxy", said(401, page, "WWW-Authenticate", `Basic realm="`+marker+`"`), kbs.ErrFault, "status 401", 1, false},
		{"401 with another's type", said(401, `{"type":"https://`+marker+`/PolicyDeny"}`), kbs.ErrFault, "status 401", 1, false},
		{"401 with a type of no letters", said(401, `{"type":"`+errorPrefix+`PolicyDeny\n`+marker+`"}`), kbs.ErrFault, "status 401", 1, false},
		{"404", said(404, page), kbs.ErrFault, "status 404", 1, false},
		{"407", said(407, page), kbs.ErrFault, "status 407", 1, false},
		{"429", said(429, page, "Retry-After", "99999"), kbs.ErrUnreachable, "status 429", 3, false},
		{"500", said(500, page), kbs.ErrUnreachable, "status 500", 3, false},
		{"503", said(503, page, "Retry-After", "99999"), kbs.ErrUnreachable, "status 503", 3, false},
	}
}

const errorPrefix = "https://github.com/confidential-containers/kbs/errors/"

// refusals are the errors of a broker, by the request that they answer.
func refusals() []garble {
	all := []garble{
		{"PolicyDeny", nil, kbs.ErrDenied, "", 1, false},
		{"PluginInternalError", nil, kbs.ErrNotFound, "", 1, false},
		{"PluginNotFound", nil, kbs.ErrNotFound, "", 1, false},
		{"AttestationError", nil, kbs.ErrAttestation, "", 3, false},
		{"JweError", nil, kbs.ErrWrap, "", 1, false},
		{"InvalidRequestPath", nil, kbs.ErrFault, "the configured URL may cause", 1, false},
		{"PolicyEngineError", nil, kbs.ErrFault, "its own policy is broken", 1, false},
		{"ParsePolicyError", nil, kbs.ErrFault, "its own policy is broken", 1, false},
		{"SerdeError", nil, kbs.ErrFault, "SerdeError", 1, false},
		{"TokenNotFound", nil, kbs.ErrSession, "", 1, false},
		{"TokenVerifierError", nil, kbs.ErrSession, "", 1, false},
	}
	for i, g := range all {
		all[i].answer = said(401, `{"type":"`+errorPrefix+g.name+`","detail":"`+marker+`"}`)
	}
	return all
}

// replies makes garbles of bodies that are no reply to a certain request.
func replies(prefix, text string, bodies map[string]string) (all []garble) {
	for name, body := range bodies {
		all = append(all, garble{prefix + name, said(200, body), kbs.ErrReply, text, 1, false})
	}
	return all
}

func wrongChallenges() (all []garble) {
	long := strings.Repeat(marker, 1000)
	for body, text := range map[string]string{
		`{"extra-params":""}`:                                        "nonce",
		`{"nonce":null}`:                                             "nonce",
		`{"nonce":7}`:                                                "challenge",
		`{"nonce":["` + marker + `"]}`:                               "challenge",
		`{"nonce":{"` + marker + `":1}}`:                             "challenge",
		`{"nonce":"` + strings.Repeat("a", 64<<10+1) + `"}`:          "nonce",
		`{"nonce":"` + marker + `\u001b[2J"}`:                        "nonce",
		`{"nonce":"\ud800"}`:                                         "nonce",
		`{"nonce":"a","extra-params":{"selected-hash-algorithm":7}}`: "extra parameters",
		`{"nonce":"a","extra-params":{"selected-hash-algorithm":"` + marker + `"}}`: "hash algorithm",
	} {
		answer := said(200, body, "Set-Cookie", "kbs-session-id=abc")
		all = append(all, garble{fmt.Sprintf("challenge %.50s", body), answer, kbs.ErrReply, text, 1, false})
	}
	good := `{"nonce":"a","extra-params":""}`
	for _, cookie := range []string{
		"", marker + "=abc", "kbs-session-id", "kbs-session-id=", "kbs-session-id=" + long,
		`kbs-session-id=a\"b`, "kbs-session-id; " + marker + "=a", "kbs-session-id=ä",
	} {
		answer := said(200, good, "Set-Cookie", cookie)
		all = append(all, garble{fmt.Sprintf("cookie %.30s", cookie), answer, kbs.ErrReply, "without a session", 1, false})
	}
	// Unpacked the first is a good challenge and the second is too large.
	for name, body := range map[string]string{"gzip": good, "gzip bomb": strings.Repeat(" ", 64<<20)} {
		answer := said(200, zipped(body), "Set-Cookie", "kbs-session-id=abc", "Content-Encoding", "gzip")
		all = append(all, garble{name, answer, kbs.ErrReply, "challenge", 1, false})
	}
	for name, cookie := range map[string]string{
		"cookie of control characters": "kbs-session-id=a\x01b",
		"header of cookies":            "kbs-session-id=" + strings.Repeat(long, 20),
	} {
		all = append(all, garble{name, said(200, good, "Set-Cookie", cookie), kbs.ErrUnreachable, lost, 3, false})
	}
	return all
}

func wrongTokens() []garble {
	return replies("token ", "token", map[string]string{
		"absent":      `{}`,
		"null":        `{"token":null}`,
		"number":      `{"token":7}`,
		"object":      `{"token":{"` + marker + `":1}}`,
		"word":        `{"token":"` + marker + `"}`,
		"two parts":   `{"token":"e30.e30"}`,
		"four parts":  `{"token":"e30.e30.e30.e30"}`,
		"empty parts": `{"token":".."}`,
		"no base64":   `{"token":"e30.` + marker + `*.e30"}`,
		"claims":      `{"token":"e30.W10.e30"}`,
		"header":      `{"token":"e30.e30\r\nX-Word: a.e30"}`,
	})
}

func wrongEnvelopes() []garble {
	sealed := func(header string) string {
		return `{"protected":"` + base64.RawURLEncoding.EncodeToString([]byte(header)) + `","encrypted_key":"AA","iv":"AA","ciphertext":"AA","tag":"AA"}`
	}
	good := `{"alg":"ECDH-ES+A256KW","enc":"A256GCM","epk":{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}`
	all := replies("JWE ", "no JWE", map[string]string{
		"types":            `{"protected":1,"encrypted_key":{},"iv":[],"ciphertext":true,"tag":null}`,
		"header no base64": `{"protected":"*` + marker + `"}`,
		"header no JSON":   sealed(marker),
		"plain text":       marker,
	})
	all = append(all, replies("JWE ", "another algorithm", map[string]string{
		"direct":        sealed(`{"alg":"dir","enc":"A256GCM"}`),
		"no algorithm":  sealed(`{"alg":"none"}`),
		"other content": sealed(strings.Replace(good, "A256GCM", "A128CBC-HS256", 1) + "}"),
	})...)
	return append(all, replies("JWE ", "", map[string]string{
		"other curve": sealed(strings.Replace(good, "P-256", "P-521", 1) + "}"),
		"compressed":  sealed(good + `,"zip":"DEF"}`),
		"critical":    sealed(good + `,"crit":["` + marker + `"]}`),
		"no point":    sealed(good + `}`),
	})...)
}
