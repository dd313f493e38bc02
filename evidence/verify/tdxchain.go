package verify

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	_ "embed"
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
	chain []*x509.Certificate // leaf first, with the root
	pckExtensions
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
	chains, err := leaf.Verify(x509.VerifyOptions{
		Roots: o.tdxRoots(), Intermediates: between, CurrentTime: o.now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return nil, forged("PCK certificate: %v", err)
	}
	key, ok := leaf.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != curve256 {
		return nil, malformed("PCK certificate has no key on P-256")
	}
	return &certificate{key, chains[0], readPCK(leaf)}, nil
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

// libraryQuote is the second opinion, on the versions that the library reads.
// It is not asked for the TCB: of all that Intel says of one it knows good and
// bad alone.
func libraryQuote(raw []byte, version uint16, o Options) (err error) {
	if version != 4 {
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
	if err := library.TdxQuote(q, &library.Options{Now: o.now(), TrustedRoots: o.tdxRoots()}); err != nil {
		return forged("go-tdx-guest: %v", err)
	}
	return nil
}
