// Package verify judges evidence of TDX, SEV-SNP, the vTPMs that Azure builds on
// both, and of plain TPMs offline: whether a genuine platform signed it, and what
// it then says. It compares nothing with what
// somebody wants; that is the business of its callers. It is never part of the
// agent: a guest does not judge itself.
//
// Signatures and chains are checked here by offset, with crypto/x509, for every
// format and processor that Trustee reads. Where github.com/google/go-tdx-guest
// and go-sev-guest know the format too, they judge as well, and both have to
// agree; their verify packages are the ones this package is there to import.
// github.com/google/go-tpm reads the structures of TPMs, and talks to none; the
// JOSE library verifies the tokens of brokers.
package verify

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"time"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/initdata"
)

// Statement is what evidence says after its signature was found genuine.
type Statement struct {
	TEE         evidence.Kind
	ReportData  [64]byte    // what the guest bound, with zeros behind
	Measurement [48]byte    // launch measurement of SNP, MRTD of TDX; zero for a TPM
	InitData    []byte      // HOST_DATA of SNP, MRCONFIGID of TDX, PCR 8 of a TPM
	Unbound     bool        // no hardware vouches for InitData
	RTMR        [4][48]byte // of TDX; zero elsewhere
	PCR         [][32]byte  // of a TPM, all 24 of SHA-256; nil elsewhere
	AK          [32]byte    // SHA-256 of the SubjectPublicKeyInfo of a plain TPM's key
	Debug       bool        // the host may read the guest's memory
	// HostControlled says that nothing vouches for who signed: a plain TPM is as
	// honest as its owner. It says something only to who knows its key, AK.
	HostControlled bool
	TCBStatus      string // of TDX, where collateral was given; one of TCBStatuses
	Format         string // version of quote or report, and the processor of SNP
	Facts          []Fact // further values, debug, TCB and SMT among them
	Events         int    // entries of the event log that the RTMRs replay from; 0 without a log

	nonce []byte // of a TPM, as long as it is
}

// Carries reports whether the evidence is bound to the digest, at most 64
// bytes, in the way of its platform: filled with zeros; as it is, in Azure's
// vTPMs; cut or filled to 32 bytes in a plain TPM.
func (st *Statement) Carries(digest []byte) bool {
	switch st.TEE {
	case evidence.AzSNP, evidence.AzTDX:
		return bytes.Equal(st.nonce, digest)
	case evidence.TPM:
		return bytes.Equal(st.nonce, initdata.Pad(digest, 32))
	}
	return st.ReportData == [64]byte(initdata.Pad(digest, 64))
}

// initDataPCR is the register that a guest with a vTPM extends, once, with the
// digest of its initdata.
const initDataPCR = 8

// BootedWith reports whether the platform says that the guest was launched with
// initdata of this digest. What a TPM extended has to be of SHA-256.
func (st *Statement) BootedWith(digest []byte) bool {
	if st.PCR != nil {
		return len(digest) == 32 && sha256.Sum256(append(make([]byte, 32), digest...)) == st.PCR[initDataPCR]
	}
	return len(st.InitData) > 0 && bytes.Equal(initdata.Pad(digest, len(st.InitData)), st.InitData)
}

// Fact is a named value for the reader of a verdict.
type Fact struct{ Name, Value string }

func (st *Statement) set(name, value string) {
	for i := range st.Facts {
		if st.Facts[i].Name == name {
			st.Facts[i].Value = value
		}
	}
}

// Options say whom to trust and when it is.
type Options struct {
	Now time.Time // zero is the present

	// TDXRoots are roots of PCK certificates; nil is Intel's.
	TDXRoots *x509.CertPool
	// Collateral is what the vendors publish. With it a quote is held against the
	// TCB levels, the identity of the quoting enclave and the CRLs of Intel, all
	// of which it has to hold; and an SNP chain against the CRLs of AMD that it
	// holds. Nil checks none.
	Collateral *Collateral
	// SNPRoots are chains of endorsement keys; nil are AMD's for Milan, Genoa
	// and Turin, for VCEK and VLEK.
	SNPRoots []SNPChain
}

func (o Options) now() time.Time {
	if o.Now.IsZero() {
		return time.Now()
	}
	return o.Now
}

// Evidence judges what a guest sends to a key broker. Evidence that is
// malformed wraps errdefs.ErrInvalidArgument, and that of an unknown kind or
// format errdefs.ErrNotImplemented; a signature or chain that is not genuine
// wraps errdefs.ErrUnauthenticated.
func Evidence(kind evidence.Kind, data json.RawMessage, o Options) (*Statement, error) {
	switch kind {
	case evidence.TDX:
		return tdxEvidence(data, o)
	case evidence.SNP:
		return snpEvidence(data, o)
	case evidence.AzSNP, evidence.AzTDX:
		return azureEvidence(kind, data, o)
	case evidence.TPM:
		return tpmEvidence(data)
	}
	return nil, fmt.Errorf("verify evidence of platform %q: %w", kind, errdefs.ErrNotImplemented)
}

func malformed(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}

func unknown(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrNotImplemented)...)
}

func forged(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrUnauthenticated)...)
}
