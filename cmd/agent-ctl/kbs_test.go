package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// certificate writes a pair for 127.0.0.1 and returns a pool that trusts it.
func certificate(t *testing.T) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &priv.PublicKey, priv)
	if err != nil {
		t.Fatal(err)
	}
	pk, err := x509.MarshalECPrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, b := range map[string]*pem.Block{
		cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "EC PRIVATE KEY", Bytes: pk},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return cert, key, pool
}

// TestKBSServe looks for the broker behind the printed URL, with and without
// TLS. What it gives to whom is tested where it is made.
func TestKBSServe(t *testing.T) {
	cert, key, pool := certificate(t)
	for scheme, extra := range map[string][]string{"http": nil, "https": {"--tls-cert", cert, "--tls-key", key}} {
		t.Run(scheme, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var out, errs buffer
			code := make(chan int)
			args := append([]string{"kbs", "serve", "--listen", "127.0.0.1:0", "--resources", t.TempDir()}, extra...)
			go func() { code <- execute(ctx, args, stdio{strings.NewReader(""), &out, &errs}) }()
			for !strings.HasSuffix(out.String(), "\n") {
				time.Sleep(5 * time.Millisecond)
			}
			url := strings.TrimSpace(out.String())
			if !strings.HasPrefix(url, scheme+"://127.0.0.1:") {
				t.Fatalf("printed %q", url)
			}
			hc := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
			resp, err := hc.Get(url + "/kbs/v0/resource/a/b/c")
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("a stranger got status %d", resp.StatusCode)
			}
			cancel()
			if c := <-code; c != 0 || !strings.Contains(errs.String(), "not for production") {
				t.Errorf("code %d, err %q", c, errs.String())
			}
		})
	}
}

func TestKBSServeRefuses(t *testing.T) {
	dir := t.TempDir()
	ctl(t, nil, "kbs", "serve").want(t, 2, "", "--resources is missing")
	ctl(t, nil, "kbs", "serve", "--resources", dir, "--tls-cert", "x").want(t, 2, "", "go together")
	ctl(t, nil, "kbs", "serve", "--resources", dir, "--listen", "0.0.0.0:0").want(t, 2, "", "0.0.0.0")
	for name, text := range map[string]string{
		"rules.toml": "[[resource]]\npath = \"*/*/*\"\ntcb_status = [\"UpToDate\"]\n",
		"root.pem":   "no certificate",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	root := filepath.Join(dir, "root.pem")
	ctl(t, nil, "kbs", "serve", "--resources", dir, "--rules", filepath.Join(dir, "rules.toml")).want(t, 2, "", "--collateral is missing")
	ctl(t, nil, "kbs", "serve", "--resources", dir, "--collateral", root).want(t, 1, "", "root.pem")
	ctl(t, nil, "kbs", "serve", "--resources", dir, "--tdx-root", root).want(t, 1, "", "root.pem holds no certificate")
	ctl(t, nil, "kbs", "serve", "--resources", dir, "--snp-root", root).want(t, 1, "", "root.pem holds no certificate")
	ctl(t, nil, "kbs", "serve", "--resources", dir+"/none").want(t, 4, "", "none")
}
