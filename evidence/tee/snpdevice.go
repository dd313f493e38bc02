package tee

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/go-sev-guest/client/linuxabi"

	"github.com/coffer-cc/coffer/evidence"
)

// certsSize is the buffer for the host's certificates. The kernel takes no
// larger one (SEV_FW_BLOB_MAX_SIZE), and wants whole pages.
const certsSize = 16 << 10

// snpDevice is /dev/sev-guest. The library's own client is not used, as it
// registers flags in every program that links it, and sleeps between requests.
type snpDevice interface {
	Ioctl(command uintptr, request any) (uintptr, error)
	Close() error
}

func openSNP(path string) (snpDevice, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return sevGuest{f}, nil
}

type sevGuest struct{ *os.File }

// Ioctl issues one request and copies the answer back.
func (d sevGuest) Ioctl(command uintptr, request any) (uintptr, error) {
	r, ok := request.(*linuxabi.SnpUserGuestRequest)
	if !ok {
		return 0, fmt.Errorf("request of type %T: %w", request, errors.ErrUnsupported)
	}
	conversion := r.ABI()
	err := ioctl(d.Fd(), command, conversion.Pointer())
	return 0, errors.Join(err, conversion.Finish(r))
}

// snpReport asks the device. The host answers a request for certificates, and
// may refuse it or have more than fit; then there is a report without them.
func (h host) snpReport(in [64]byte, certs bool) (raw, table []byte, err error) {
	d, err := h.openSNP(filepath.Join(h.root, "dev/sev-guest"))
	if err != nil {
		return nil, nil, evidence.DriverDevice.Wrap(fmt.Errorf("open the SNP device (is the module sev-guest loaded?): %w", err))
	}
	defer d.Close()
	plain := linuxabi.SnpReportReqABI{ReportData: in} // for VMPL 0, which verifiers demand
	var refusal error
	if certs {
		ext := &linuxabi.SnpExtendedReportReq{Data: plain, Certs: make([]byte, certsSize), CertsLength: certsSize}
		if raw, refusal = snpRequest(d, linuxabi.IocSnpGetExtendedReport, ext); refusal == nil {
			return raw, ext.Certs, nil
		}
	}
	if raw, err = snpRequest(d, linuxabi.IocSnpGetReport, &plain); err != nil {
		// After an error of the firmware the driver answers nothing else, so
		// that the first error is the one that tells.
		return nil, nil, errors.Join(refusal, err)
	}
	return raw, nil, nil
}

func snpRequest(d snpDevice, command uintptr, req linuxabi.BinaryConvertible) ([]byte, error) {
	var resp linuxabi.SnpReportRespABI
	r := &linuxabi.SnpUserGuestRequest{ReqData: req, RespData: &resp}
	if _, err := d.Ioctl(command, r); err != nil {
		return nil, evidence.DriverIoctl.Wrap(fmt.Errorf("ask the SNP device for a report (firmware error %#x): %w", r.FwErr, err))
	}
	return resp.Data[:min(int(resp.ReportSize), len(resp.Data))], nil
}
