// Package evidence holds what the parts of attestation say to each other: the
// statement of a platform about this guest, and who makes such statements.
package evidence

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"
)

// Kind names a platform with the word the key broker protocol uses.
type Kind string

// Platforms that this program knows by name.
const (
	TDX    Kind = "tdx"
	SNP    Kind = "snp"
	AzSNP  Kind = "az-snp-vtpm" // SNP below the paravisor of Azure, and its vTPM
	AzTDX  Kind = "az-tdx-vtpm" // the same on TDX
	TPM    Kind = "tpm"         // alone: as honest as who made it, mostly the host
	CCA    Kind = "cca"         // realms of Arm
	SE     Kind = "se"          // Secure Execution of IBM Z
	Sample Kind = "sample"      // no hardware behind it: proves nothing

	NVIDIA       Kind = "nvidia"       // a device beside the platform
	SampleDevice Kind = "sampledevice" // as Sample, and a device
)

// Evidence is one statement: the platform that made it and its JSON form as
// verifiers read it.
type Evidence struct {
	Kind Kind
	Data json.RawMessage
}

// ReportDataSize is how much report data hardware signs.
const ReportDataSize = 64

// ReportData is what a caller wants bound into the signed part, at most 64
// bytes. It remembers its length: most platforms sign the zero-padded form,
// some take the bytes as they are. The zero value is empty report data.
type ReportData struct {
	data [ReportDataSize]byte
	size int
}

// NewReportData copies b, which wraps errdefs.ErrInvalidArgument when it is
// longer than 64 bytes: hash longer data first.
func NewReportData(b []byte) (ReportData, error) {
	var rd ReportData
	if len(b) > len(rd.data) {
		return rd, fmt.Errorf("report data exceeds %d bytes: %w", len(rd.data), errdefs.ErrInvalidArgument)
	}
	rd.size = copy(rd.data[:], b)
	return rd, nil
}

// Bytes returns the data as given, without padding.
func (rd ReportData) Bytes() []byte { return append([]byte(nil), rd.data[:rd.size]...) }

// Padded returns the data with zeros on the right, the form that TDX and SNP
// sign.
func (rd ReportData) Padded() [ReportDataSize]byte { return rd.data }

// A Collector asks the hardware for a statement about this guest. Collect may
// be called from several goroutines; implementations serialise access to their
// device. The report data is bound into the signed part, so a caller that
// wants freshness must put the verifier's nonce there.
type Collector interface {
	Kind() Kind
	Collect(ctx context.Context, rd ReportData) (Evidence, error)
}

// Challenged is a Collector whose platform answers the challenge of the
// verifier itself, so that it needs the text of it beside the report data: that
// of Secure Execution holds a request that only the firmware can read. Collect
// of such a platform has no request to answer and fails.
type Challenged interface {
	CollectFor(ctx context.Context, challenge string, rd ReportData) (Evidence, error)
}

// Anchored is a Collector whose platform has a register that was filled when
// the guest was launched and cannot change afterwards: HOST_DATA of SNP,
// MRCONFIGID of TDX. The host puts the digest of the initdata there, cut or
// filled with zeros to the register's size, which is the length of what
// LaunchAnchor returns. The value comes from the platform and not by way of
// the host; where it cannot be read that way there is an error.
type Anchored interface {
	LaunchAnchor(ctx context.Context) ([]byte, error)
}

// Extendable is a Collector whose platform has instead a register that is zero
// after a reset of the machine and can only be extended: PCR 8 of a TPM. There
// the guest itself puts the digest of the initdata, once and before anything in
// the document takes effect; whoever runs before could have used it up, but not
// have set it. A digest d makes it SHA-256(register ‖ d).
type Extendable interface {
	ReadAnchor(ctx context.Context) ([32]byte, error)
	ExtendAnchor(ctx context.Context, digest [32]byte) error
	// AnchorBinds tells whether hardware keeps the register from the host. Of a
	// TPM that the host itself runs, the anchor proves nothing.
	AnchorBinds() bool
}
