package kbs_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/kbs"
	"github.com/coffer-cc/coffer/evidence/tee"
)

// whisper is in everything that a hostile broker says, and in no error.
const whisper = "what-the-broker-said"

// says answers one verb of the protocol in the broker's place.
func says(verb string, status int, body string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, "/kbs/v0/"+verb) {
			return false
		}
		w.Header().Set("X-Note", whisper)
		w.Header().Set("Location", "http://127.0.0.1/"+whisper)
		w.WriteHeader(status)
		fmt.Fprint(w, body)
		return true
	}
}

func refuses(kind string) string {
	return fmt.Sprintf(`{"type":"https://github.com/confidential-containers/kbs/errors/%s","detail":%q}`, kind, whisper)
}

// TestCodes has a broker misbehave at each step. Each way has a code, ends, and
// tells nothing of what the broker said.
func TestCodes(t *testing.T) {
	endless := func(verb string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasPrefix(r.URL.Path, "/kbs/v0/"+verb) {
				return false
			}
			for r.Context().Err() == nil {
				if _, err := fmt.Fprint(w, strings.Repeat(whisper, 1000)); err != nil {
					break
				}
			}
			return true
		}
	}
	hangs := func(verb string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasPrefix(r.URL.Path, "/kbs/v0/"+verb) {
				return false
			}
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			return true
		}
	}
	other := evidencetest.NewKBS(t, options())
	for _, tt := range []struct {
		name   string
		answer func(http.ResponseWriter, *http.Request) bool
		want   evidence.Code
	}{
		{"slow challenge", hangs("auth"), evidence.TransportTimeout},
		{"slow verdict", hangs("attest"), evidence.TransportTimeout},
		{"slow resource", hangs("resource"), evidence.TransportTimeout},
		{"endless challenge", endless("auth"), evidence.TransportReply},
		{"endless verdict", endless("attest"), evidence.TransportReply},
		{"endless resource", endless("resource"), evidence.TransportReply},
		{"garbage for a challenge", says("auth", 200, whisper), evidence.TransportReply},
		{"challenge without a nonce", says("auth", 200, `{"extra-params":"`+whisper+`"}`), evidence.TransportReply},
		{"garbage for a token", says("attest", 200, whisper), evidence.TransportReply},
		{"garbage in a token", says("attest", 200, `{"token":"`+whisper+`!.e30.e30"}`), evidence.TransportReply},
		{"garbage for a resource", says("resource", 200, whisper), evidence.ResourceMalformed},
		{"redirect of the challenge", says("auth", 302, whisper), evidence.TransportReply},
		{"redirect of the resource", says("resource", 307, whisper), evidence.TransportReply},
		{"portal", says("auth", 401, "<html>"+whisper), evidence.TransportReply},
		{"gateway", says("auth", 502, whisper), evidence.TransportBusy},
		{"too many requests", says("resource", 429, whisper), evidence.TransportBusy},
		{"no session for us", says("auth", 401, refuses("AttestationError")), evidence.VerdictProtocol},
		{"no belief", says("attest", 401, refuses("AttestationError")), evidence.VerdictRefused},
		{"own fault", says("attest", 401, refuses("RvpsError")), evidence.VerdictFault},
		{"session forgotten", says("resource", 401, refuses("TokenNotFound")), evidence.VerdictSession},
		{"token not verified", says("resource", 401, refuses("TokenVerifierError")), evidence.VerdictSession},
		{"denied", says("resource", 401, refuses("PolicyDeny")), evidence.PolicyDenied},
		{"broken policy", says("resource", 401, refuses("PolicyEngineError")), evidence.PolicyBroken},
		{"absent", says("resource", 401, refuses("PluginInternalError")), evidence.ResourceAbsent},
		{"no plugin", says("resource", 404, refuses("PluginNotFound")), evidence.ResourceAbsent},
		{"cannot wrap", says("resource", 401, refuses("JweError")), evidence.ResourceWrap},
		{"wrong path", says("auth", 404, refuses("InvalidRequestPath")), evidence.TransportReply},
		{"wrong key", func(w http.ResponseWriter, r *http.Request) bool {
			return strings.HasPrefix(r.URL.Path, "/kbs/v0/resource") && forOther(t, other, w)
		}, evidence.ResourceWrap},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := evidencetest.NewKBS(t, options())
			k.Intercept(tt.answer)
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			b, err := newClient(t, kbs.Config{URL: k.URL, Timeout: 300 * time.Millisecond}).Resource(ctx, name)
			if b != nil || evidence.CodeOf(err) != tt.want {
				t.Fatalf("Resource = %d bytes, %v, want %s", len(b), err, tt.want)
			}
			text := err.Error()
			if strings.Contains(text, whisper) || strings.ContainsAny(text, "\n\x1b") || strings.Count(text, string(tt.want)) != 1 || len(text) > 300 {
				t.Errorf("the error says %q", text)
			}
		})
	}
}

// forOther answers with the resource as another guest gets it.
func forOther(t *testing.T, other *evidencetest.KBS, w http.ResponseWriter) bool {
	var body []byte
	var status int
	recorder := func(rw http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, "/kbs/v0/resource") {
			return false
		}
		rec := httptest.NewRecorder()
		other.Broker.ServeHTTP(rec, r)
		body, status = rec.Body.Bytes(), rec.Code
		rw.WriteHeader(status)
		_, _ = rw.Write(body)
		return true
	}
	other.Intercept(recorder)
	defer other.Intercept(nil)
	wantContents(t, newClient(t, kbs.Config{URL: other.URL}))
	w.WriteHeader(status)
	_, _ = w.Write(body)
	return true
}

// TestCodesOfTheWay are faults before any broker.
func TestCodesOfTheWay(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	l.Close()
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, whisper, http.StatusForbidden) }))
	defer refusing.Close()
	strange := evidencetest.NewTLSKBS(t, options())
	plain := evidencetest.NewKBS(t, options())
	for _, tt := range []struct {
		name   string
		config kbs.Config
		want   evidence.Code
	}{
		{"nobody listens", kbs.Config{URL: "http://" + nobody}, evidence.TransportRefused},
		{"no such name", kbs.Config{URL: "http://broker.invalid"}, evidence.TransportDNS},
		{"unknown certificate", kbs.Config{URL: strange.URL}, evidence.TransportCertificate},
		{"no TLS", kbs.Config{URL: "https" + strings.TrimPrefix(plain.URL, "http")}, evidence.TransportTLS},
		{"no proxy there", kbs.Config{URL: "http://broker.invalid", Proxy: kbs.Proxy{HTTP: "http://" + nobody}}, evidence.TransportProxy},
		{"proxy refuses", kbs.Config{URL: "https://broker.invalid", Proxy: kbs.Proxy{HTTPS: refusing.URL}}, evidence.TransportProxy},
		{"driver fails", kbs.Config{URL: plain.URL, Collector: &evidencetest.Collector{Inner: tee.Sample(), Err: evidence.DriverIoctl.Wrap(errors.New("no"))}}, evidence.DriverIoctl},
		{"device fails", kbs.Config{URL: plain.URL, Devices: []evidence.Collector{tee.Helper("nvidia", "/nonexistent")}}, evidence.DriverHelper},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := newClient(t, tt.config).Attest(ctx)
			if evidence.CodeOf(err) != tt.want || strings.Contains(err.Error(), whisper) {
				t.Errorf("Attest: %v, want %s", err, tt.want)
			}
		})
	}
	for text, c := range map[string]kbs.Config{
		"URL":    {URL: "ftp://x", Collector: tee.Sample()},
		"proxy":  {URL: plain.URL, Collector: tee.Sample(), Proxy: kbs.Proxy{HTTPS: "http://:8080"}},
		"roots":  {URL: plain.URL, Collector: tee.Sample(), Cert: "none"},
		"no pin": {URL: plain.URL, Collector: tee.Sample(), Pin: true},
	} {
		if _, err := kbs.New(c); evidence.CodeOf(err) != evidence.TransportConfig {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestCodeOfLostPatience tells a caller what it waited for in vain.
func TestCodeOfLostPatience(t *testing.T) {
	k := evidencetest.NewKBS(t, options())
	hold := make(chan struct{})
	defer close(hold)
	entered := make(chan struct{})
	slow := &evidencetest.Collector{Inner: tee.Sample(), Hold: hold, Entered: func() { close(entered) }}
	c := newClient(t, kbs.Config{URL: k.URL, Collector: slow})
	early, cancel := context.WithCancelCause(ctx)
	go func() {
		<-entered
		cancel(nil)
	}()
	if err := c.Attest(early); !errors.Is(err, context.Canceled) || evidence.CodeOf(err) != "" {
		t.Errorf("who leaves has found no fault: %v", err)
	}
	late, done := context.WithTimeout(ctx, 10*time.Millisecond) // the platform is being asked already
	defer done()
	if err := c.Attest(late); !errors.Is(err, context.DeadlineExceeded) || evidence.CodeOf(err) != evidence.DriverTimeout {
		t.Errorf("a platform that takes too long: %v", err)
	}
}

// TestCauseOutlivesPatience gives the fault of the attempts, not the deadline.
func TestCauseOutlivesPatience(t *testing.T) {
	k := evidencetest.NewKBS(t, options())
	k.Intercept(says("auth", 503, whisper))
	c := newClient(t, kbs.Config{URL: k.URL, Backoff: time.Hour})
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	err := c.Attest(short)
	if evidence.CodeOf(err) != evidence.TransportBusy || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Attest: %v", err)
	}
}
