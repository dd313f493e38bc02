package devkbs_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence/devkbs"
)

func TestFolder(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.MkdirAll(filepath.Join(dir, "default/key"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{outside: "no", filepath.Join(dir, "default/key/1"): "contents"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(dir, "default/key/link")); err != nil {
		t.Fatal(err)
	}
	files, err := devkbs.Folder(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(t, func(o *devkbs.Options) { o.Resources = files })
	g := newGuest(t, s)
	if w := g.attest(g.statement()); w.Code != 200 {
		t.Fatal(w.Body)
	}
	if w := do(s, "GET", "resource/default/key/1", g.cookie, ""); w.Code != 200 {
		t.Errorf("file: %d %s", w.Code, w.Body)
	}
	wantRefusal(t, do(s, "GET", "resource/default/key/link", g.cookie, ""), 401, "PluginInternalError")
	if _, err := devkbs.Folder(filepath.Join(dir, "none")); err == nil {
		t.Error("a folder that is not there opens")
	}
}

func TestListen(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0", "example.com:0"} {
		if l, err := devkbs.Listen(addr, false); !errdefs.IsPermissionDenied(err) {
			t.Errorf("Listen(%q) = %v, %v, want permission denied", addr, l, err)
		}
	}
	for addr, insecure := range map[string]bool{"127.0.0.1:0": false, "localhost:0": false, "0.0.0.0:0": true} {
		l, err := devkbs.Listen(addr, insecure)
		if err != nil {
			t.Errorf("Listen(%q, %v): %v", addr, insecure, err)
			continue
		}
		l.Close()
	}
}

func TestServe(t *testing.T) {
	l, err := devkbs.Listen("127.0.0.1:0", false)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	s := newServer(t, func(o *devkbs.Options) { o.Log = slog.New(slog.NewTextHandler(&out, nil)) })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx, l, nil) }()
	resp, err := http.Get("http://" + l.Addr().String() + "/kbs/v0/resource/a/b/c")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	cancel()
	if err := <-done; err != nil || resp.StatusCode != 401 {
		t.Errorf("Serve: %v, status %d", err, resp.StatusCode)
	}
	if !strings.Contains(out.String(), "not for production") || !strings.Contains(out.String(), "refused") {
		t.Errorf("log: %s", out.String())
	}
}
