// Package verify judges evidence of TDX and SEV-SNP offline: whether a genuine
// platform signed it, and what it then says. It compares nothing with what
// somebody wants; that is the business of its callers. It is never part of the
// agent: a guest does not judge itself.
//
// Signatures and chains are checked here by offset, with crypto/x509, for every
// format and processor that Trustee reads. Where github.com/google/go-tdx-guest
// and go-sev-guest know the format too, they judge as well, and both have to
// agree; their verify packages are the ones this package is there to import.
package verify

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"time"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence"
)

// Statement is what evidence says after its signature was found genuine.
type Statement struct {
	TEE         evidence.Kind
	ReportData  [64]byte
	Measurement [48]byte    // launch measurement of SNP, MRTD of TDX
	InitData    []byte      // HOST_DATA of SNP, MRCONFIGID of TDX
	RTMR        [4][48]byte // of TDX; zero for SNP
	Debug       bool        // the host may read the guest's memory
	Format      string      // version of quote or report, and the processor of SNP
	Facts       []Fact      // further values, debug, TCB and SMT among them
	Events      int         // entries of the event log that the RTMRs replay from; 0 without a log
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
	// Collateral answers for Intel's provisioning certification service, from
	// files for example. With it a quote of version 4 is also held against the
	// TCB that Intel calls current and against revocations; one of version 5 is
	// refused, as nothing here knows how. Nil checks neither.
	Collateral Collateral
	// SNPRoots are chains of endorsement keys; nil are AMD's for Milan, Genoa
	// and Turin, for VCEK and VLEK.
	SNPRoots []SNPChain
}

// Collateral is an HTTPS GET.
type Collateral interface {
	Get(url string) (header map[string][]string, body []byte, err error)
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
