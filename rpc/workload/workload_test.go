package workload_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence/broker"
	"github.com/coffer-cc/coffer/evidence/devkbs"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/resource"
	"github.com/coffer-cc/coffer/evidence/secret"
	"github.com/coffer-cc/coffer/evidence/tee"
	"github.com/coffer-cc/coffer/rpc/workload"
)

// store answers with one value or error, and remembers what it handed out.
type store struct {
	text string
	err  error
	gave secret.Bytes
	name resource.URI
}

func (s *store) Resource(_ context.Context, u resource.URI) (secret.Bytes, error) {
	s.name = u
	if s.err != nil {
		return nil, fmt.Errorf("fetch %s: at https://internal.example: %w", u, s.err)
	}
	s.gave = secret.Bytes(s.text)
	return s.gave, nil
}

func TestRoutes(t *testing.T) {
	const local, good = "127.0.0.1:40000", "/cdh/resource/default/key/1"
	full, off := workload.Deps{Resources: &store{text: "contents"}}, workload.Deps{}
	failing := func(err error) workload.Deps { return workload.Deps{Resources: &store{err: err}} }
	tests := []struct {
		name         string
		deps         workload.Deps
		peer, method string
		path         string
		status       int
		body         string
	}{
		{"resource", full, local, "GET", good, 200, "contents"},
		{"query is dropped", full, local, "GET", good + "?x=../../y", 200, "contents"},
		{"ipv6 peer", full, "[::1]:1", "GET", good, 200, "contents"},
		{"peer from outside", full, "10.0.0.1:1", "GET", good, 403, "Forbidden"},
		{"peer without address", full, "@", "GET", good, 403, "Forbidden"},
		{"post", full, local, "POST", good, 405, "Method Not Allowed"},
		{"delete", full, local, "DELETE", good, 405, "Method Not Allowed"},
		{"head", full, local, "HEAD", good, 405, "Method Not Allowed"},
		{"two parts", full, local, "GET", "/cdh/resource/default/key", 404, "URL NOT FOUND"},
		{"four parts", full, local, "GET", good + "/2", 404, "URL NOT FOUND"},
		{"dot dot", full, local, "GET", "/cdh/resource/default/../1", 404, "URL NOT FOUND"},
		{"escaped slash", full, local, "GET", "/cdh/resource/default/a%2f..%2fb/1", 404, "URL NOT FOUND"},
		{"escaped nul", full, local, "GET", "/cdh/resource/default/a%00/1", 404, "URL NOT FOUND"},
		{"long part", full, local, "GET", good + strings.Repeat("a", 300), 404, "URL NOT FOUND"},
		{"other cdh path", full, local, "GET", "/cdh/unknown/a/b", 404, "URL NOT FOUND"},
		{"root", full, local, "GET", "/", 404, "URL NOT FOUND"},
		{"evidence", full, local, "GET", "/aa/evidence?runtime_data=x", 404, "Attestation Feature Not Enabled"},
		{"token", full, local, "GET", "/aa/token?token_type=kbs", 404, "Attestation Feature Not Enabled"},
		{"switched off", off, local, "GET", good, 404, "Resource Feature Not Enabled"},
		{"denied", failing(errdefs.ErrPermissionDenied), local, "GET", good, 500, "resource denied by the key broker"},
		{"not attested", failing(errdefs.ErrUnauthenticated), local, "GET", good, 500, "attestation refused by the key broker"},
		{"missing", failing(errdefs.ErrNotFound), local, "GET", good, 500, "no such resource"},
		{"broker down", failing(errdefs.ErrUnavailable), local, "GET", good, 500, "key broker unreachable"},
		{"no broker", failing(errdefs.ErrFailedPrecondition), local, "GET", good, 500, "no key broker"},
		{"other fault", failing(io.ErrUnexpectedEOF), local, "GET", good, 500, "internal error"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest(tt.method, tt.path, nil)
			r.RemoteAddr = tt.peer
			w := httptest.NewRecorder()
			workload.New(tt.deps).ServeHTTP(w, r)
			if w.Code != tt.status || w.Body.String() != tt.body {
				t.Errorf("%s %s = %d %q, want %d %q", tt.method, tt.path, w.Code, w.Body, tt.status, tt.body)
			}
		})
	}
}

func TestResourceIsWipedAndNotLogged(t *testing.T) {
	var out bytes.Buffer
	old := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&out, nil)))
	defer slog.SetDefault(old)
	s := &store{text: "hunter2"}
	r := httptest.NewRequest("GET", "/cdh/resource/default/key/1", nil)
	r.RemoteAddr = "127.0.0.1:1"
	w := httptest.NewRecorder()
	workload.New(workload.Deps{Resources: s}).ServeHTTP(w, r)
	if w.Body.String() != "hunter2" || w.Header().Get("Content-Type") != "application/octet-stream" {
		t.Errorf("answer %q of type %s", w.Body, w.Header().Get("Content-Type"))
	}
	if !bytes.Equal(s.gave, make([]byte, 7)) {
		t.Error("the resource was not wiped")
	}
	if strings.Contains(out.String(), "hunter2") || !strings.Contains(out.String(), "kbs:///default/key/1") {
		t.Errorf("log: %s", out.String())
	}
}

// A registry may answer the image puller with an address of the guest itself.
// What it would get there it would send to the registry, as a token for instance.
func TestOwnRequestsAreRefused(t *testing.T) {
	for agent, status := range map[string]int{"coffer/1": 403, "coffer/2": 200, "curl/8": 200, "": 200} {
		s := &store{text: `{"token":"hunter2"}`}
		r := httptest.NewRequest("GET", "/cdh/resource/default/key/1?service=x&scope=y", nil)
		r.RemoteAddr = "127.0.0.1:1"
		r.Header.Set("User-Agent", agent)
		w := httptest.NewRecorder()
		workload.New(workload.Deps{Resources: s, Own: "coffer/1"}).ServeHTTP(w, r)
		if w.Code != status || status == 403 && (s.gave != nil || strings.Contains(w.Body.String(), "hunter2")) {
			t.Errorf("%q: %d %q", agent, w.Code, w.Body)
		}
	}
}

func TestBodyIsRefused(t *testing.T) {
	for _, length := range []int64{7, -1} {
		r := httptest.NewRequest("GET", "/cdh/resource/default/key/1", strings.NewReader("content"))
		r.RemoteAddr, r.ContentLength = "127.0.0.1:1", length
		w := httptest.NewRecorder()
		workload.New(workload.Deps{Resources: &store{}}).ServeHTTP(w, r)
		if w.Code != http.StatusRequestEntityTooLarge {
			t.Errorf("body of length %d: status %d", length, w.Code)
		}
	}
}

func TestListen(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", ":0", "10.0.0.1:0", "localhost:0", "[::]:0", "127.0.0.1", ""} {
		if l, err := workload.Listen(context.Background(), addr); !errdefs.IsInvalidArgument(err) {
			t.Errorf("Listen(%q) = %v, %v", addr, l, err)
		}
	}
}

// serve runs the interface and returns its URL and a function that stops it.
func serve(t *testing.T, d workload.Deps) (url string, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l, err := workload.Listen(ctx, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- workload.Serve(ctx, l, workload.New(d)) }()
	return "http://" + l.Addr().String(), func() error { cancel(); return <-done }
}

func TestServeThroughTheBroker(t *testing.T) {
	k := evidencetest.NewKBS(t, devkbs.Options{
		AllowSample: true,
		Resources:   evidencetest.Resources(map[string]string{"default/key/1": "contents"}),
	})
	b, err := broker.Open(broker.Config{URL: k.URL}, tee.Sample())
	if err != nil {
		t.Fatal(err)
	}
	url, stop := serve(t, workload.Deps{Resources: b})
	for _, want := range []struct {
		refuse bool
		status int
		body   string
	}{{false, 200, "contents"}, {true, 500, "resource denied by the key broker (policy/denied)"}} {
		k.Broker.SetRefuse(want.refuse)
		resp, err := http.Get(url + "/cdh/resource/default/key/1")
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want.status || string(body) != want.body {
			t.Errorf("GET = %d %q, want %d %q", resp.StatusCode, body, want.status, want.body)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	if err := stop(); err != nil {
		t.Errorf("Serve: %v", err)
	}
	if _, err := net.Dial("tcp", strings.TrimPrefix(url, "http://")); err == nil {
		t.Error("the port is still open")
	}
}

func TestConnectionsAreLimited(t *testing.T) {
	url, stop := serve(t, workload.Deps{})
	addr := strings.TrimPrefix(url, "http://")
	var held []net.Conn
	for range 64 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		held = append(held, c)
	}
	late, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	fmt.Fprint(late, "GET / HTTP/1.0\r\n\r\n")
	buf := make([]byte, 12)
	late.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if n, err := late.Read(buf); err == nil {
		t.Fatalf("connection 65 is answered: %q", buf[:n])
	}
	held[0].Close()
	late.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadFull(late, buf); err != nil || string(buf) != "HTTP/1.0 404" {
		t.Errorf("after one left: %q, %v", buf, err)
	}
	for _, c := range held {
		c.Close()
	}
	if err := stop(); err != nil {
		t.Errorf("Serve: %v", err)
	}
}
