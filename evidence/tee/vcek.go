package tee

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha512"
	"crypto/x509"
	"fmt"
	"math/big"
	"slices"

	"github.com/containerd/errdefs"
)

// vcek is the certificate of a chip's key, kept as long as the chip and its
// firmware stay the same.
type vcek struct {
	der []byte
	key []byte // snpReport.signer
}

// of returns the certificate of the key that signed the report.
func (v *vcek) of(ctx context.Context, r snpReport, service imds) ([]byte, error) {
	if v.der != nil && bytes.Equal(v.key, r.signer()) {
		return v.der, nil
	}
	der, err := service.vcek(ctx)
	if err != nil {
		return nil, err
	}
	// After an update of the firmware the host may still keep the old one, which
	// a verifier would refuse without telling the reason to this guest.
	if err := r.signedBy(der); err != nil {
		return nil, err
	}
	v.der, v.key = der, r.signer()
	return der, nil
}

// signedBy checks the report's signature, and nothing of the certificate but
// that it holds the key: whose it is is for the verifier to judge.
func (r snpReport) signedBy(der []byte) error {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("VCEK is no certificate: %w", errdefs.ErrDataLoss)
	}
	key, ok := cert.PublicKey.(*ecdsa.PublicKey)
	digest := sha512.Sum384(r[:reportSignature])
	if !ok || !ecdsa.Verify(key, digest[:], r.number(reportSignature), r.number(reportSignature+72)) {
		return fmt.Errorf("the report is not signed by the chip that the VCEK is of: %w", errdefs.ErrFailedPrecondition)
	}
	return nil
}

// number reads a part of the signature, 72 bytes in little endian.
func (r snpReport) number(at int) *big.Int {
	b := bytes.Clone(r[at : at+72])
	slices.Reverse(b)
	return new(big.Int).SetBytes(b)
}
