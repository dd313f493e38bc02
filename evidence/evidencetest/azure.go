package evidencetest

import (
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"testing"

	"github.com/coffer-cc/coffer/evidence"
)

// Azure is a machine of Azure: a paravisor with a vTPM on one of two platforms.
// Set the fields before its first use.
type Azure struct {
	TPM *TPM
	SNP *SNP // one of the two
	TDX *TDX
}

// NewAzureSNP is one on SNP.
func NewAzureSNP(t testing.TB) *Azure { return &Azure{TPM: NewTPM(t, false), SNP: NewSNP(t)} }

// NewAzureTDX is one on TDX.
func NewAzureTDX(t testing.TB) *Azure { return &Azure{TPM: NewTPM(t, false), TDX: NewTDX(t)} }

// Kind is one of the two.
func (a *Azure) Kind() evidence.Kind {
	if a.SNP != nil {
		return evidence.AzSNP
	}
	return evidence.AzTDX
}

// Collect makes evidence of version 2.
func (a *Azure) Collect(_ context.Context, rd evidence.ReportData) (evidence.Evidence, error) {
	claims, err := a.claims(rd)
	if err != nil {
		return evidence.Evidence{}, err
	}
	message, signature, err := a.TPM.quote(rd.Bytes())
	if err != nil {
		return evidence.Evidence{}, fmt.Errorf("quote: %w", err)
	}
	var in [64]byte
	sum := sha256.Sum256(claims)
	copy(in[:], sum[:])
	hardware, kind := make([]byte, 1184), uint32(4)
	e := map[string]any{
		"version": 2,
		"tpm_quote": map[string]any{
			"signature": hex.EncodeToString(signature), "message": hex.EncodeToString(message), "pcrs": a.TPM.registers(),
		},
	}
	if a.SNP != nil {
		kind = 2
		hardware, err = a.SNP.Report(in)
		e["vcek"] = base64.URLEncoding.EncodeToString(a.SNP.VCEK().Raw)
	} else {
		var quote []byte
		quote, err = a.TDX.Quote(in)
		copy(hardware, a.TDX.Report(in))
		e["td_quote"] = base64.URLEncoding.EncodeToString(quote)
	}
	if err != nil {
		return evidence.Evidence{}, err
	}
	e["hcl_report"] = base64.URLEncoding.EncodeToString(hcl(kind, hardware, claims))
	data, err := json.Marshal(e)
	return evidence.Evidence{Kind: a.Kind(), Data: data}, err
}

// claims are what the paravisor says, with its user's data.
func (a *Azure) claims(rd evidence.ReportData) ([]byte, error) {
	key, ok := a.TPM.key.Public().(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("the paravisor's key is of RSA and not %T", a.TPM.key)
	}
	padded := rd.Padded()
	return json.Marshal(map[string]any{
		"keys": []any{map[string]any{
			"kid": "HCLAkPub", "kty": "RSA", "key_ops": []string{"sign"}, "e": "AQAB", "n": base64.RawURLEncoding.EncodeToString(key.N.Bytes()),
		}},
		"vm-configuration": map[string]any{"console-enabled": false, "secure-boot": true, "tpm-enabled": true},
		"user-data":        hex.EncodeToString(padded[:]),
	})
}

// hcl is the paravisor's report, in the room of the vTPM's index.
func hcl(kind uint32, hardware, claims []byte) []byte {
	b := append([]byte("HCLA"), make([]byte, 28)...)
	b = append(b, hardware[:1184]...)
	for _, n := range []int{20 + len(claims), 1, int(kind), 1, len(claims)} {
		b = binary.LittleEndian.AppendUint32(b, uint32(n))
	}
	b = append(b, claims...)
	return append(b, make([]byte, max(0, 2600-len(b)))...)
}

// numbersOf takes a signature in DER apart.
func numbersOf(der []byte) (r, s []byte) {
	var sig struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &sig); err != nil {
		panic(err) // it was made here
	}
	return sig.R.Bytes(), sig.S.Bytes()
}
