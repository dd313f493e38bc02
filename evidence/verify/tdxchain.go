package verify

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	_ "embed"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"

	"github.com/google/go-tdx-guest/abi"
	library "github.com/google/go-tdx-guest/verify"
)

// intelRoot is Intel SGX Root CA, published at
// certificates.trustedservices.intel.com.
//
//go:embed roots/intel-sgx-root-ca.pem
var intelRoot []byte

func (o Options) tdxRoots() *x509.CertPool {
	if o.TDXRoots != nil {
		return o.TDXRoots
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(intelRoot)
	return roots
}

// certificate is a platform's certificate, which its chain vouches for.
type certificate struct {
	key   *ecdsa.PublicKey
	fmspc string // family and model of the platform, in hex
}

// maxChain bounds the certificates of a quote; there are three.
const maxChain = 8

// pckCertificate verifies the chain, leaf first, against the roots.
func pckCertificate(chain []byte, o Options) (*certificate, error) {
	certs, err := parsePEM(chain)
	if err != nil {
		return nil, err
	}
	between := x509.NewCertPool()
	for _, c := range certs[1:] {
		between.AddCert(c)
	}
	leaf := certs[0]
	if leaf.Subject.CommonName != "Intel SGX PCK Certificate" {
		return nil, forged("leaf is not a PCK certificate")
	}
	if _, err := leaf.Verify(x509.VerifyOptions{
		Roots: o.tdxRoots(), Intermediates: between, CurrentTime: o.now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}); err != nil {
		return nil, forged("PCK certificate: %v", err)
	}
	key, ok := leaf.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != curve256 {
		return nil, malformed("PCK certificate has no key on P-256")
	}
	return &certificate{key: key, fmspc: fmspc(leaf)}, nil
}

func parsePEM(text []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for text = bytes.TrimRight(text, "\x00"); len(bytes.TrimSpace(text)) > 0; {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil || block.Type != "CERTIFICATE" || len(certs) == maxChain {
			return nil, malformed("certificate chain")
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, malformed("certificate %d of the chain", len(certs))
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, malformed("certificate chain is empty")
	}
	return certs, nil
}

// Extensions of PCK certificates (Intel: SGX PCK Certificate and CRL Profile).
var (
	oidSGX   = asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1}
	oidFMSPC = asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1, 4}
)

// fmspc is empty where the certificate does not tell.
func fmspc(leaf *x509.Certificate) string {
	for _, ext := range leaf.Extensions {
		var fields []struct {
			ID    asn1.ObjectIdentifier
			Value asn1.RawValue
		}
		if !ext.Id.Equal(oidSGX) {
			continue
		}
		if _, err := asn1.Unmarshal(ext.Value, &fields); err != nil {
			return ""
		}
		for _, f := range fields {
			if f.ID.Equal(oidFMSPC) {
				return hex.EncodeToString(f.Value.Bytes)
			}
		}
	}
	return ""
}

// libraryQuote is the second opinion, on the versions that the library reads.
func libraryQuote(raw []byte, version uint16, o Options) (err error) {
	if version != 4 {
		if o.Collateral != nil {
			return unknown("collateral for a quote of version %d", version)
		}
		return nil
	}
	defer func() {
		if p := recover(); p != nil {
			err = malformed("go-tdx-guest cannot read it: %v", p)
		}
	}()
	q, err := abi.QuoteToProto(raw)
	if err != nil {
		return malformed("go-tdx-guest: %v", err)
	}
	options := &library.Options{Now: o.now(), TrustedRoots: o.tdxRoots()}
	if o.Collateral != nil {
		options.Getter, options.GetCollateral, options.CheckRevocations = o.Collateral, true, true
	}
	if err := library.TdxQuote(q, options); err != nil {
		return forged("go-tdx-guest: %v", err)
	}
	return nil
}
