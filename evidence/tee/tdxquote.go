package tee

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence"
)

// Sizes of a quote: a header, then a body, in version 5 with a type and a size
// before it (Intel TDX DCAP: Quote Generation Library, appendix A).
const (
	quoteHeader    = 48
	quoteBody      = 584 // TDX 1.0; later bodies begin with the same
	quoteBodyHead  = 6
	bodyReportData = 520
	teeTypeTDX     = 0x81
)

// checkQuote finds out early what a verifier would refuse without telling the
// reason to this guest: it does not verify anything.
func checkQuote(q []byte, in [64]byte) error {
	if len(q) == 0 {
		return evidence.EndorsementQuoting.Wrap(fmt.Errorf("the host gives an empty quote: %w", errdefs.ErrUnavailable))
	}
	if len(q) < quoteHeader+quoteBodyHead+quoteBody {
		return evidence.DriverReply.Wrap(fmt.Errorf("quote of %d bytes is too short: %w", len(q), errdefs.ErrInvalidArgument))
	}
	body := quoteHeader
	switch version := binary.LittleEndian.Uint16(q); version {
	case 4:
	case 5:
		body += quoteBodyHead
	default:
		return evidence.PlatformUnsupported.Wrap(fmt.Errorf("quote has version %d, verifiers read 4 and 5: %w", version, errdefs.ErrNotImplemented))
	}
	if t := binary.LittleEndian.Uint32(q[4:]); t != teeTypeTDX {
		return evidence.DriverReply.Wrap(fmt.Errorf("quote is of TEE type %#x and not of a TDX guest: %w", t, errdefs.ErrInvalidArgument))
	}
	if !bytes.Equal(q[body+bodyReportData:body+bodyReportData+64], in[:]) {
		return evidence.DriverReply.Wrap(fmt.Errorf("quote carries other report data: %w", errdefs.ErrDataLoss))
	}
	return nil
}
