package tee

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence"
)

// serveHelper answers each connection with what answer makes of the request.
func serveHelper(t *testing.T, answer func(request []byte, conn net.Conn)) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "helper.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			request, err := io.ReadAll(conn)
			if err == nil {
				answer(request, conn)
			}
			conn.Close()
		}
	}()
	return socket
}

func reportData(t *testing.T, text string) evidence.ReportData {
	t.Helper()
	rd, err := evidence.NewReportData([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return rd
}

// The helper signs what it was asked to sign, as a device would.
func TestHelper(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	socket := serveHelper(t, func(request []byte, conn net.Conn) {
		var r struct {
			Version    int
			Kind       string
			ReportData []byte `json:"report_data"`
		}
		if err := json.Unmarshal(request, &r); err != nil || r.Version != 1 || r.Kind != "nvidia" {
			t.Errorf("request %s: %v", request, err)
		}
		json.NewEncoder(conn).Encode(map[string]any{"evidence": map[string]any{"signature": ed25519.Sign(private, r.ReportData)}})
	})
	h := Helper(evidence.NVIDIA, socket)
	for _, text := range []string{"one", "two"} {
		e, err := h.Collect(t.Context(), reportData(t, text))
		if err != nil {
			t.Fatal(err)
		}
		var data struct{ Signature []byte }
		if err := json.Unmarshal(e.Data, &data); err != nil || e.Kind != evidence.NVIDIA || !ed25519.Verify(public, []byte(text), data.Signature) {
			t.Errorf("evidence %s of %s, %v", e.Data, e.Kind, err)
		}
	}
}

func TestHelperMisbehaves(t *testing.T) {
	say := func(text string) func([]byte, net.Conn) {
		return func(_ []byte, conn net.Conn) { io.WriteString(conn, text) }
	}
	for name, tc := range map[string]struct {
		answer func([]byte, net.Conn)
		class  func(error) bool
		text   string
	}{
		"error":           {say(`{"error":"no GPU\nfound"}`), errdefs.IsFailedPrecondition, `"no GPU\nfound"`},
		"long error":      {say(`{"error":"` + strings.Repeat("x", 9999) + `"}`), errdefs.IsFailedPrecondition, "xxx"},
		"nothing":         {say(""), errdefs.IsUnavailable, "EOF"},
		"garbage":         {say("<html>"), errdefs.IsDataLoss, "without evidence"},
		"evidence a text": {say(`{"evidence":"x"}`), errdefs.IsDataLoss, "without evidence"},
		"null":            {say(`{"evidence":null}`), errdefs.IsDataLoss, "without evidence"},
		"two objects":     {say(`{"evidence":{}}{}`), errdefs.IsDataLoss, "without evidence"},
		"endless": {func(_ []byte, conn net.Conn) {
			for {
				if _, err := conn.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		}, errdefs.IsUnavailable, "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Helper(evidence.NVIDIA, serveHelper(t, tc.answer)).Collect(t.Context(), reportData(t, "x"))
			if !tc.class(err) || !strings.Contains(err.Error(), tc.text) || len(err.Error()) > 600 {
				t.Errorf("Collect: %.700v", err)
			}
		})
	}
	if _, err := Helper(evidence.NVIDIA, filepath.Join(t.TempDir(), "none")).Collect(t.Context(), reportData(t, "x")); !errdefs.IsUnavailable(err) {
		t.Errorf("absent helper: %v", err)
	}
}

func TestHelperThatIsSilent(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	silent := serveHelper(t, func(_ []byte, conn net.Conn) {
		cancel()
		io.Copy(io.Discard, conn) // until the agent has hung up
		conn.Read(make([]byte, 1))
		<-t.Context().Done()
	})
	if _, err := Helper(evidence.NVIDIA, silent).Collect(ctx, reportData(t, "x")); err == nil {
		t.Error("Collect succeeds")
	}
}

func TestSampleDevice(t *testing.T) {
	e, err := SampleDevice().Collect(t.Context(), reportData(t, "abc"))
	if want := []byte(`{"svn":"2","report_data":"YWJj"}`); err != nil || !bytes.Equal(e.Data, want) || e.Kind != evidence.SampleDevice {
		t.Errorf("Collect = %s of %s, %v, want %s", e.Data, e.Kind, err, want)
	}
}
