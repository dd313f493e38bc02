package evidencetest

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/coffer-cc/coffer/evidence"
)

// TPM quotes its registers with a key of its own. It writes its structures by
// hand, so that a library which reads them wrongly is found out. It is not safe
// for concurrent use.
type TPM struct {
	PCR [24][32]byte
	// Edit may change TPMS_ATTEST before it is signed.
	Edit func([]byte)

	key crypto.Signer
}

// NewTPM has a key of RSA, or one on P-256.
func NewTPM(t testing.TB, curve bool) *TPM {
	t.Helper()
	p := new(TPM)
	var err error
	if p.key, err = rsa.GenerateKey(rand.Reader, 2048); curve {
		p.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Extend mixes a digest into a register.
func (p *TPM) Extend(pcr int, digest [32]byte) {
	p.PCR[pcr] = sha256.Sum256(append(p.PCR[pcr][:], digest[:]...))
}

// Key is the SubjectPublicKeyInfo of the attestation key.
func (p *TPM) Key() []byte {
	der, err := x509.MarshalPKIXPublicKey(p.key.Public())
	if err != nil {
		panic(err) // it was made here
	}
	return der
}

// sized is a TPM2B: a length, and as many bytes.
func sized(b, content []byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(content))), content...)
}

// message is TPMS_ATTEST of a quote of all registers.
func (p *TPM) message(nonce []byte) []byte {
	b := append([]byte{0xff}, "TCG\x80\x18"...)
	b = sized(b, []byte("\x00\x0bname of the key"))
	b = sized(b, nonce)
	b = append(b, make([]byte, 17+8)...) // clock, version of the firmware
	b = append(b, 0, 0, 0, 1, 0, 0x0b, 3, 0xff, 0xff, 0xff)
	sum := sha256.New()
	for _, r := range p.PCR {
		sum.Write(r[:])
	}
	return sized(b, sum.Sum(nil))
}

// quote returns TPMS_ATTEST and the bare signature: of RSA as it is, of ECDSA
// in DER.
func (p *TPM) quote(nonce []byte) (message, signature []byte, err error) {
	message = p.message(nonce)
	if p.Edit != nil {
		p.Edit(message)
	}
	sum := sha256.Sum256(message)
	signature, err = p.key.Sign(rand.Reader, sum[:], crypto.SHA256)
	return message, signature, err
}

// structure is TPMT_SIGNATURE around a bare signature.
func (p *TPM) structure(signature []byte) []byte {
	if _, ok := p.key.(*rsa.PrivateKey); ok {
		return sized([]byte{0, 0x14, 0, 0x0b}, signature)
	}
	r, s := numbersOf(signature)
	return sized(sized([]byte{0, 0x18, 0, 0x0b}, r), s)
}

func (p *TPM) registers() []string {
	var list []string
	for _, r := range p.PCR {
		list = append(list, hex.EncodeToString(r[:]))
	}
	return list
}

// Kind is that of a TPM alone.
func (p *TPM) Kind() evidence.Kind { return evidence.TPM }

// Collect makes evidence as Trustee reads it.
func (p *TPM) Collect(_ context.Context, rd evidence.ReportData) (evidence.Evidence, error) {
	padded := rd.Padded()
	message, signature, err := p.quote(padded[:32])
	if err != nil {
		return evidence.Evidence{}, fmt.Errorf("quote: %w", err)
	}
	data, err := json.Marshal(map[string]any{
		"ak_public": p.Key(),
		"tpm_quote": map[string]any{"signature": p.structure(signature), "message": message, "pcrs": p.registers()},
	})
	return evidence.Evidence{Kind: evidence.TPM, Data: data}, err
}
