package tpm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"

	"github.com/containerd/errdefs"
	"github.com/google/go-tpm/tpm2"
)

// MaxNonce is how many bytes of the caller's a quote can carry. Some TPMs take
// less, but none less than 32.
const MaxNonce = 64

// quoteTries bounds how often a quote is taken again because a PCR was extended
// between it and the reading of the values.
const quoteTries = 5

// A Quote is what the TPM says about all its PCRs.
type Quote struct {
	Message    []byte           // TPMS_ATTEST, which is what is signed
	Signature  []byte           // of RSA the number (PKCS #1 v1.5), of ECDSA r and s in the size of the curve
	Marshalled []byte           // TPMT_SIGNATURE, which holds the same
	Key        crypto.PublicKey // whose signature it is
	PCRs       Values           // those that the message has the digest of
}

// Quote has the PCRs signed, together with the nonce, by the attestation key at
// a persistent handle. The values in the answer are those that were signed, and
// the signature fits the key; who the key belongs to is the verifier's to judge.
// Where PCRs change all the time the error wraps errdefs.ErrUnavailable; what
// does not fit together wraps errdefs.ErrDataLoss.
func (d *Device) Quote(handle uint32, nonce []byte) (Quote, error) {
	if len(nonce) > MaxNonce {
		return Quote{}, fmt.Errorf("a nonce of %d bytes: %w", len(nonce), errdefs.ErrInvalidArgument)
	}
	q, err := ask(d, func(l *link) (Quote, error) {
		k, err := readKey(l, handle)
		if err != nil {
			return Quote{}, err
		}
		return takeQuote(l, k, nonce)
	})
	if err != nil {
		return Quote{}, fmt.Errorf("quote: %w", err)
	}
	return q, nil
}

var errRace = errors.New("PCRs were extended meanwhile")

func takeQuote(l *link, k key, nonce []byte) (q Quote, err error) {
	for range quoteTries {
		if q, err = sign(l, k, nonce); err != nil {
			return Quote{}, err
		}
		if q.PCRs, err = readPCRs(l, allPCRs); err != nil {
			return Quote{}, err
		}
		if err = q.check(nonce); !errors.Is(err, errRace) {
			return q, err
		}
	}
	return Quote{}, fmt.Errorf("%w, %d times: %w", err, quoteTries, errdefs.ErrUnavailable)
}

// sign asks for a message and its signature.
func sign(l *link, k key, nonce []byte) (Quote, error) {
	r, err := tpm2.Quote{
		SignHandle:     k.handle,
		QualifyingData: tpm2.TPM2BData{Buffer: nonce},
		InScheme:       scheme(k.public),
		PCRSelect:      selection(allPCRs),
	}.Execute(l)
	if err != nil {
		return Quote{}, err
	}
	q := Quote{Message: r.Quoted.Bytes(), Key: k.public}
	if q.Signature, err = signature(r.Signature, k.public); err != nil {
		return Quote{}, err
	}
	q.Marshalled = tpm2.Marshal(r.Signature)
	return q, nil
}

// scheme is what verifiers know. A key that was made for another one is refused
// by the TPM.
func scheme(public crypto.PublicKey) tpm2.TPMTSigScheme {
	alg := tpm2.TPMAlgRSASSA
	if _, ok := public.(*ecdsa.PublicKey); ok {
		alg = tpm2.TPMAlgECDSA
	}
	return tpm2.TPMTSigScheme{Scheme: alg, Details: tpm2.NewTPMUSigScheme(alg, &tpm2.TPMSSchemeHash{HashAlg: tpm2.TPMAlgSHA256})}
}

// signature takes the bytes out of their structure.
func signature(s tpm2.TPMTSignature, public crypto.PublicKey) ([]byte, error) {
	if pub, ok := public.(*ecdsa.PublicKey); ok {
		ecc, err := s.Signature.ECDSA()
		size := (pub.Curve.Params().BitSize + 7) / 8
		if err != nil || ecc.Hash != tpm2.TPMAlgSHA256 || len(ecc.SignatureR.Buffer) > size || len(ecc.SignatureS.Buffer) > size {
			return nil, malformed("no ECDSA signature of the algorithm %#x", s.SigAlg)
		}
		out := make([]byte, 2*size)
		copy(out[size-len(ecc.SignatureR.Buffer):], ecc.SignatureR.Buffer)
		copy(out[2*size-len(ecc.SignatureS.Buffer):], ecc.SignatureS.Buffer)
		return out, nil
	}
	r, err := s.Signature.RSASSA()
	if err != nil || r.Hash != tpm2.TPMAlgSHA256 {
		return nil, malformed("no RSASSA signature of the algorithm %#x", s.SigAlg)
	}
	return r.Sig.Buffer, nil
}

// check sees that message, signature, nonce and values belong together. It
// returns errRace when only the values do not.
func (q Quote) check(nonce []byte) error {
	if !q.signed() {
		return malformed("the signature is not the key's")
	}
	attest, err := tpm2.Unmarshal[tpm2.TPMSAttest](q.Message)
	if err != nil {
		return malformed("%v", err)
	}
	info, err := attest.Attested.Quote()
	if err != nil {
		return malformed("%v", err)
	}
	if mask, err := maskOf(info.PCRSelect); err != nil || mask != allPCRs {
		return malformed("a quote of the PCRs %#x", mask)
	}
	if !bytes.Equal(attest.ExtraData.Buffer, nonce) {
		return malformed("a quote with the nonce %x, not %x", attest.ExtraData.Buffer, nonce)
	}
	h := sha256.New()
	for _, v := range q.PCRs {
		h.Write(v[:])
	}
	if !bytes.Equal(info.PCRDigest.Buffer, h.Sum(nil)) {
		return errRace
	}
	return nil
}

func (q Quote) signed() bool {
	digest := sha256.Sum256(q.Message)
	switch pub := q.Key.(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(pub, crypto.SHA256, digest[:], q.Signature) == nil
	case *ecdsa.PublicKey:
		r, s := q.Signature[:len(q.Signature)/2], q.Signature[len(q.Signature)/2:]
		return ecdsa.Verify(pub, digest[:], new(big.Int).SetBytes(r), new(big.Int).SetBytes(s))
	}
	return false
}
