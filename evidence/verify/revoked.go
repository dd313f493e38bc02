package verify

import (
	"bytes"
	"crypto/x509"
	"time"
)

// unrevoked checks each certificate of a chain, leaf first, against its
// issuer's CRL. Where demanded is false an issuer without CRL is passed over;
// it then tells how many were checked.
func (c *Collateral) unrevoked(chain []*x509.Certificate, now time.Time, demanded bool) (checked int, err error) {
	for i, cert := range chain[:len(chain)-1] {
		issuer := chain[i+1]
		crl := c.crlOf(issuer)
		if crl == nil {
			if demanded {
				return checked, missing("CRL of %q", issuer.Subject.CommonName)
			}
			continue
		}
		if now.Before(crl.ThisUpdate) || now.After(crl.NextUpdate) {
			return checked, forged("CRL of %q is of another time, %s to %s", issuer.Subject.CommonName, day(crl.ThisUpdate), day(crl.NextUpdate))
		}
		for _, e := range crl.RevokedCertificateEntries {
			if e.SerialNumber.Cmp(cert.SerialNumber) == 0 {
				return checked, forged("certificate %q is revoked", cert.Subject.CommonName)
			}
		}
		checked++
	}
	return checked, nil
}

// crlOf is the newest list that the issuer signed, nil without one.
func (c *Collateral) crlOf(issuer *x509.Certificate) *x509.RevocationList {
	var newest *x509.RevocationList
	for _, l := range c.crls {
		if !bytes.Equal(l.RawIssuer, issuer.RawSubject) || l.CheckSignatureFrom(issuer) != nil {
			continue
		}
		if newest == nil || l.ThisUpdate.After(newest.ThisUpdate) {
			newest = l
		}
	}
	return newest
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }
