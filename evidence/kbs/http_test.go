package kbs

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"testing"
)

// systemCerts are those of Debian's package, which the tests need anyway.
const systemCerts = "/etc/ssl/certs/ca-certificates.crt"

func TestPinLeavesTheSystemOut(t *testing.T) {
	text, err := os.ReadFile(systemCerts)
	if err != nil {
		t.Fatal(err)
	}
	first, _ := pem.Decode(text)
	block := pem.EncodeToMemory(first)
	alone := x509.NewCertPool()
	if !alone.AppendCertsFromPEM(block) {
		t.Fatal("no certificate at the start of the system's")
	}
	pinned, err := rootCAs(string(block), true)
	if err != nil || !pinned.Equal(alone) {
		t.Errorf("pinned: %v, and other certificates than the given one: %v", err, !pinned.Equal(alone))
	}
	added, err := rootCAs(string(block), false)
	if err != nil || added.Equal(alone) {
		t.Errorf("added: %v, and nothing of the system's is there: %v", err, added.Equal(alone))
	}
}
