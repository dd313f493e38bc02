package tpm

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"os"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-tpm/tpm2"

	"github.com/coffer-cc/coffer/evidence/evidencetest"
)

const (
	ak        = 0x81010002
	dataIndex = 0x01400002
)

// open returns a TPM with the attestation key.
func open(t *testing.T, template tpm2.TPMTPublic) (*Device, *evidencetest.SWTPM) {
	t.Helper()
	s := evidencetest.StartSWTPM(t)
	s.AK(t, ak, template)
	d := New(s.Dial(t))
	t.Cleanup(func() { d.Close() })
	return d, s
}

func TestQuote(t *testing.T) {
	for name, template := range map[string]tpm2.TPMTPublic{"RSA": evidencetest.RSAKey, "ECC": evidencetest.ECCKey} {
		t.Run(name, func(t *testing.T) {
			d, _ := open(t, template)
			if err := d.Extend(8, Digest{1}); err != nil {
				t.Fatal(err)
			}
			nonce := bytes.Repeat([]byte{0xab}, 48)
			q, err := d.Quote(ak, nonce)
			if err != nil {
				t.Fatal(err)
			}
			if want := sha256.Sum256(append(make([]byte, 32), append([]byte{1}, make([]byte, 31)...)...)); q.PCRs[8] != want {
				t.Errorf("PCR 8 is %x", q.PCRs[8])
			}
			if !bytes.Contains(q.Message, nonce) || !bytes.HasPrefix(q.Message, []byte("\xffTCG\x80\x18")) {
				t.Errorf("message %x", q.Message)
			}
			public, err := d.ReadPublic(ak)
			if err != nil {
				t.Fatal(err)
			}
			switch key := public.(type) {
			case *rsa.PublicKey:
				if !key.Equal(q.Key) || len(q.Signature) != 256 || !bytes.HasSuffix(q.Marshalled, q.Signature) || len(q.Marshalled) != 6+256 {
					t.Errorf("signature %x", q.Marshalled)
				}
			case *ecdsa.PublicKey:
				if !key.Equal(q.Key) || len(q.Signature) != 64 {
					t.Errorf("signature %x", q.Signature)
				}
			}
		})
	}
}

func TestQuoteRefusals(t *testing.T) {
	d, _ := open(t, evidencetest.RSAKey)
	if _, err := d.Quote(ak+1, nil); !errdefs.IsNotFound(err) {
		t.Errorf("without the key: %v", err)
	}
	if _, err := d.Quote(ak, make([]byte, 65)); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a long nonce: %v", err)
	}
	if _, err := d.ReadPublic(ak + 1); !errdefs.IsNotFound(err) {
		t.Errorf("without the key: %v", err)
	}
}

func TestPCR(t *testing.T) {
	d, _ := open(t, evidencetest.RSAKey)
	for i, want := range map[int]Digest{0: {}, 8: {}, 17: Digest(bytes.Repeat([]byte{0xff}, 32)), 23: {}} {
		if got, err := d.ReadPCR(i); err != nil || got != want {
			t.Errorf("PCR %d = %x, %v", i, got, err)
		}
	}
	if err := d.Extend(23, Digest{7}); err != nil {
		t.Fatal(err)
	}
	want := sha256.Sum256(append(make([]byte, 32), append([]byte{7}, make([]byte, 31)...)...))
	if got, err := d.ReadPCR(23); err != nil || got != want {
		t.Errorf("PCR 23 = %x, %v", got, err)
	}
	for _, i := range []int{-1, 24} {
		if _, err := d.ReadPCR(i); !errdefs.IsInvalidArgument(err) {
			t.Errorf("read PCR %d: %v", i, err)
		}
		if err := d.Extend(i, Digest{}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("extend PCR %d: %v", i, err)
		}
	}
}

func TestNV(t *testing.T) {
	d, s := open(t, evidencetest.RSAKey)
	if _, err := d.ReadNV(dataIndex); !errdefs.IsNotFound(err) {
		t.Errorf("without the index: %v", err)
	}
	for _, size := range []int{48, 64, 64, 2048} {
		data := bytes.Repeat([]byte{byte(size)}, size)
		data[size-1] = 1
		if err := d.WriteNV(dataIndex, data); err != nil {
			t.Fatal(err)
		}
		if got, err := d.ReadNV(dataIndex); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes: %x, %v", size, got, err)
		}
	}
	d.Close()
	s.Off()
	s.On(t)
	d = New(s.Dial(t))
	defer d.Close()
	if got, err := d.ReadNV(dataIndex); err != nil || len(got) != 2048 {
		t.Errorf("after a restart: %d bytes, %v", len(got), err)
	}
	if err := d.WriteNV(dataIndex, nil); !errdefs.IsInvalidArgument(err) {
		t.Errorf("no data: %v", err)
	}
}

func TestOpen(t *testing.T) {
	if _, err := Open("/nonexistent"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Open: %v", err)
	}
}

// A TPM that is gone is told from one that answers.
func TestGone(t *testing.T) {
	d, s := open(t, evidencetest.RSAKey)
	if _, err := d.ReadPCR(0); err != nil {
		t.Fatal(err)
	}
	s.Off()
	for range 2 {
		if _, err := d.Quote(ak, nil); !errdefs.IsUnavailable(err) {
			t.Errorf("Quote: %v", err)
		}
	}
}
