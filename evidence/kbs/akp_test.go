package kbs

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The samples are those of NIST for KMAC (SP 800-185) without customisation.
func TestKMACVectors(t *testing.T) {
	key := make([]byte, 32)
	for i := range key {
		key[i] = byte(0x40 + i)
	}
	data := make([]byte, 0xc8)
	for i := range data {
		data[i] = byte(i)
	}
	const want = "75358cf39e41494e949707927cee0af20a3ff553904c86b08f21cc414bcfd691" +
		"589d27cf5e15369cbbff8b9a4c2eb17800855d0235ff635da82533ec6b759b69"
	if got := hex.EncodeToString(kmac256(key, data, 64)); got != want {
		t.Errorf("sample 5 = %s, want %s", got, want)
	}
}

// The second opinion is openssl's.
func TestWrappingKeyAgreesWithOpenSSL(t *testing.T) {
	for n := range 4 {
		shared := bytes.Repeat([]byte{byte(17 * n)}, 32)
		info := wrapInfo(algAKP, 192)
		file := filepath.Join(t.TempDir(), "info")
		if err := os.WriteFile(file, info, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("openssl", "mac", "-macopt", "hexkey:"+hex.EncodeToString(shared),
			"-macopt", "size:24", "-in", file, "KMAC256").CombinedOutput()
		if err != nil {
			t.Fatalf("openssl: %v: %s", err, out)
		}
		got := fmt.Sprintf("%X", kmac256(shared, info, 24))
		if want := strings.TrimSpace(string(out)); got != want {
			t.Errorf("key %d = %s, want %s", n, got, want)
		}
	}
}

func TestEncodingsOfLengths(t *testing.T) {
	for _, tt := range []struct {
		n           uint64
		left, right string
	}{
		{0, "0100", "0001"}, {136, "0188", "8801"}, {192, "01c0", "c001"},
		{256, "020100", "010002"}, {1 << 16, "03010000", "01000003"},
	} {
		if l, r := hex.EncodeToString(leftEncode(tt.n)), hex.EncodeToString(rightEncode(tt.n)); l != tt.left || r != tt.right {
			t.Errorf("%d = %s and %s, want %s and %s", tt.n, l, r, tt.left, tt.right)
		}
	}
}
