package cca_test

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence/cca"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
)

func TestRecordedTokens(t *testing.T) {
	for name, want := range map[string]struct {
		challenge, personalization string // how they begin
	}{
		"cca-example-token.cbor":      {"57e979ae2618de0c", strings.Repeat("00", 64)},
		"cca-token-draft-ffm-00.cbor": {"6e86d6d97cc713bc", hex.EncodeToString([]byte("The quick brown fox jumps over 13 lazy dogs."))},
	} {
		got, err := cca.Parse(evidencetest.Fixture(t, "cca/"+name))
		if err != nil || !strings.HasPrefix(hex.EncodeToString(got.Challenge[:]), want.challenge) ||
			!strings.HasPrefix(hex.EncodeToString(got.Personalization[:]), want.personalization) {
			t.Errorf("%s: %x, %v", name, got, err)
		}
	}
}

// made is a token with a signature by each key, over these values.
func made(t testing.TB) []byte {
	t.Helper()
	p := evidencetest.NewCCA(t)
	p.Personalization = [64]byte(bytes.Repeat([]byte{0xbb}, 64))
	token, _, err := p.Sign([64]byte(bytes.Repeat([]byte{0xaa}, 64)))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestMadeToken(t *testing.T) {
	token := made(t)
	got, err := cca.Parse(token)
	if err != nil || got.Challenge != [64]byte(bytes.Repeat([]byte{0xaa}, 64)) || got.Personalization != [64]byte(bytes.Repeat([]byte{0xbb}, 64)) {
		t.Fatalf("Parse = %x, %v", got, err)
	}
	for n := range token {
		if _, err := cca.Parse(token[:n]); !errdefs.IsInvalidArgument(err) {
			t.Fatalf("the first %d bytes: %v", n, err)
		}
	}
}

func TestMalformedTokens(t *testing.T) {
	token := made(t)
	at := func(hexBytes string) int {
		b, err := hex.DecodeString(hexBytes)
		if err != nil {
			t.Fatal(err)
		}
		i := bytes.Index(token, b)
		if i < 0 {
			t.Fatalf("no %s", hexBytes)
		}
		return i
	}
	set := func(where int, b ...byte) []byte {
		out := bytes.Clone(token)
		copy(out[where:], b)
		return out
	}
	realm := at("19acd1")
	for fault, bad := range map[string][]byte{
		"ends early":               {},
		"tag 400":                  set(2, 0x90),
		"token is of another":      append([]byte{0xd9, 0x01, 0x8f}, 0x80),
		"unknown key 1":            append([]byte{0xd9, 0x01, 0x8f, 0xa1, 0x01}, 0x40),
		"platform token is of":     append([]byte{0xd9, 0x01, 0x8f, 0xa1, 0x19, 0xac, 0xca}, 0x60),
		"twice":                    set(realm, 0x19, 0xac, 0xca),
		"1 bytes follow token":     append(bytes.Clone(token), 0),
		"tag 17":                   set(realm+6, 0xd1),
		"parts and not 4":          set(realm+7, 0x83),
		"unstated length":          set(realm+8, 0x5f),
		"challenge has":            set(at("0a5840aaaa"), 0x0a, 0x58, 0x3f),
		"is missing":               set(at("0a5840aaaa"), 0x0b),
		"personalization value is": set(at("19accb5840"), 0x19, 0xac, 0xcb, 0x78),
		"nest too deep":            append([]byte{0xd9, 0x01, 0x8f, 0xa1}, append(bytes.Repeat([]byte{0x81}, 100), 0x01, 0x01)...),
	} {
		if got, err := cca.Parse(bad); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), fault) || got != (cca.Realm{}) {
			t.Errorf("%s: %v", fault, err)
		}
	}
	huge := append([]byte{0xd9, 0x01, 0x8f, 0xbb}, bytes.Repeat([]byte{0xff}, 8)...)
	if _, err := cca.Parse(huge); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a map of 2^64-1: %v", err)
	}
}

// FuzzParse finds what Parse returns in the token.
func FuzzParse(f *testing.F) {
	for _, name := range []string{"cca-example-token.cbor", "cca-token-draft-ffm-00.cbor"} {
		f.Add(evidencetest.Fixture(f, "cca/"+name))
	}
	f.Add(made(f))
	f.Add([]byte{0xd9, 0x01, 0x8f, 0xa2, 0x19, 0xac, 0xca, 0x41, 0xd2, 0x19, 0xac, 0xd1, 0x40})
	f.Fuzz(func(t *testing.T, token []byte) {
		r, err := cca.Parse(token)
		switch {
		case err != nil && !errdefs.IsInvalidArgument(err):
			t.Errorf("%v has another class", err)
		case err == nil && (!bytes.Contains(token, r.Challenge[:]) || !bytes.Contains(token, r.Personalization[:])):
			t.Errorf("%x is not in %x", r, token)
		}
	})
}
