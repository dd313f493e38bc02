package tee

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence/evidencetest"
)

// scripted is a client of a metadata service that says what the script says.
func scripted(t *testing.T, script func(http.ResponseWriter, *http.Request) bool) (imds, *evidencetest.IMDS) {
	t.Helper()
	service := evidencetest.NewIMDS(t, evidencetest.NewSNP(t), nil)
	service.Script = script
	m := newIMDS(service.URL)
	m.backoff = time.Millisecond
	return m, service
}

func status(code int) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		http.Error(w, "<secret of the host>", code)
		return true
	}
}

func TestIMDSHostile(t *testing.T) {
	endless := func(w http.ResponseWriter, _ *http.Request) bool {
		for {
			if _, err := io.WriteString(w, `{"vcekCert":"`+strings.Repeat("A", 1<<16)); err != nil {
				return true
			}
		}
	}
	for name, c := range map[string]struct {
		script   func(http.ResponseWriter, *http.Request) bool
		class    func(error) bool
		fault    string
		requests int
	}{
		"bad request": {status(http.StatusBadRequest), errdefs.IsUnavailable, "status 400", 1},
		"not found":   {status(http.StatusNotFound), errdefs.IsUnavailable, "status 404", 1},
		"no content":  {func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusNoContent); return true }, errdefs.IsUnavailable, "status 204", 1},
		"gone":        {status(http.StatusGone), errdefs.IsUnavailable, "status 410", imdsTries},
		"busy":        {status(http.StatusTooManyRequests), errdefs.IsUnavailable, "status 429", imdsTries},
		"broken":      {status(http.StatusInternalServerError), errdefs.IsUnavailable, "status 500", imdsTries},
		"endless":     {endless, errdefs.IsDataLoss, "more than", 1},
		"endless head": {func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("X", strings.Repeat("x", 1<<20))
			return true
		}, errdefs.IsUnavailable, "connection failed", 1},
		"hangs up": {func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }, errdefs.IsUnavailable, "connection failed", -1},
		"short": {func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "{")
			return true
		}, errdefs.IsUnavailable, "connection failed", 1},
		"empty":         {answer(""), errdefs.IsDataLoss, "malformed", 1},
		"no JSON":       {answer("<html>"), errdefs.IsDataLoss, "malformed", 1},
		"other JSON":    {answer(`{"vcekCert":[1]}`), errdefs.IsDataLoss, "malformed", 1},
		"nothing in it": {answer(`{}`), errdefs.IsDataLoss, "no certificate", 1},
		"no PEM":        {answer(`{"vcekCert":"AAAA"}`), errdefs.IsDataLoss, "no certificate", 1},
		"a key":         {answer(strings.ReplaceAll(vcekAnswer([]byte("x")), "CERTIFICATE", "PRIVATE KEY")), errdefs.IsDataLoss, "no certificate", 1},
		"huge":          {answer(vcekAnswer(make([]byte, maxVCEK+1))), errdefs.IsDataLoss, "no certificate", 1},
	} {
		t.Run(name, func(t *testing.T) {
			m, service := scripted(t, c.script)
			der, err := m.vcek(t.Context())
			if err == nil || !c.class(err) || !strings.Contains(err.Error(), c.fault) {
				t.Errorf("%d bytes, %v", len(der), err)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error says what the host said: %v", err)
			}
			if got := service.Requests(); c.requests > 0 && got != c.requests {
				t.Errorf("%d requests, want %d", got, c.requests)
			}
		})
	}
}

// TestIMDSBusyOnce asks again, and with the same body.
func TestIMDSBusyOnce(t *testing.T) {
	platform := evidencetest.NewTDX(t)
	service := evidencetest.NewIMDS(t, nil, platform)
	var busy atomic.Bool
	busy.Store(true)
	service.Script = func(w http.ResponseWriter, r *http.Request) bool {
		return busy.Swap(false) && status(http.StatusServiceUnavailable)(w, r)
	}
	m := newIMDS(service.URL)
	m.backoff = time.Millisecond
	quote, err := m.quote(t.Context(), platform.Report([64]byte{1}))
	if err != nil || checkQuote(quote, [64]byte{1}) != nil || service.Requests() != 2 {
		t.Errorf("%d bytes after %d requests: %v", len(quote), service.Requests(), err)
	}
}

func TestIMDSQuoteAnswers(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":     `{}`,
		"empty":       `{"quote":""}`,
		"padding":     `{"quote":"===="}`,
		"no base64":   `{"quote":"****"}`,
		"other type":  `{"quote":7}`,
		"only spaces": "  \n",
	} {
		m, _ := scripted(t, answer(text))
		if quote, err := m.quote(t.Context(), []byte("report")); !errdefs.IsDataLoss(err) {
			t.Errorf("%s: %x, %v", name, quote, err)
		}
	}
	for _, text := range []string{`{"quote":"_-8"}`, `{"quote":"_-8="}`} {
		m, _ := scripted(t, answer(text))
		if quote, err := m.quote(t.Context(), []byte("report")); err != nil || string(quote) != "\xff\xef" {
			t.Errorf("%s: %x, %v", text, quote, err)
		}
	}
}

// TestIMDSGoesNowhereElse follows no redirect, and heeds no proxy.
func TestIMDSGoesNowhereElse(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the guest came here") }))
	defer elsewhere.Close()
	t.Setenv("HTTP_PROXY", elsewhere.URL)
	t.Setenv("http_proxy", elsewhere.URL)
	for _, code := range []int{301, 302, 303, 307, 308} {
		m, service := scripted(t, func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, elsewhere.URL, code)
			return true
		})
		if _, err := m.vcek(t.Context()); !errdefs.IsUnavailable(err) || service.Requests() != 1 {
			t.Errorf("redirect %d: %v after %d requests", code, err, service.Requests())
		}
	}
	// Go takes no proxy for a loopback address, whatever it is told.
	if proxy := newIMDS(imdsURL).http.Transport.(*http.Transport).Proxy; proxy != nil {
		t.Error("a proxy is looked for")
	}
}

// TestIMDSWithoutHeader sees that the fake refuses as the service does.
func TestIMDSWithoutHeader(t *testing.T) {
	_, service := scripted(t, nil)
	resp, err := http.Get(service.URL + "/metadata/THIM/amd/certification")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest || service.Certificates() != 0 {
		t.Errorf("status %d, %d certificates", resp.StatusCode, service.Certificates())
	}
}

// TestIMDSSilent gives up on a service that accepts and says nothing.
func TestIMDSSilent(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := newIMDS("http://" + l.Addr().String())
	m.http.Timeout = 20 * time.Millisecond
	if _, err := m.vcek(t.Context()); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "timed out") {
		t.Errorf("silence: %v", err)
	}
	m.http.Timeout = time.Hour
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := m.vcek(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a caller in a hurry: %v", err)
	}
	l.Close()
	if _, err := m.vcek(t.Context()); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "connection failed") {
		t.Errorf("nobody there: %v", err)
	}
}
