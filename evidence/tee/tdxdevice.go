package tee

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/evidence"
)

// The report of the TDX module (Intel TDX Module ABI, TDREPORT_STRUCT).
const (
	tdreportSize     = 1024
	tdreportData     = 128      // REPORTDATA
	tdreportConfigID = 512 + 64 // MRCONFIGID in TDINFO
)

// tdxReportReq is struct tdx_report_req of linux/tdx-guest.h.
type tdxReportReq struct {
	reportData [64]byte
	tdreport   [tdreportSize]byte
}

// getReport0 is TDX_CMD_GET_REPORT0: _IOWR('T', 1, struct tdx_report_req).
const getReport0 = 3<<30 | unsafe.Sizeof(tdxReportReq{})<<16 | 'T'<<8 | 1

// tdreport asks the device for a report of the TDX module.
func (h host) tdreport(in [64]byte) ([]byte, error) {
	f, err := os.OpenFile(filepath.Join(h.root, "dev/tdx_guest"), os.O_RDWR, 0)
	if err != nil {
		return nil, evidence.DriverDevice.Wrap(fmt.Errorf("open the TDX device (is the module tdx-guest loaded?): %w", err))
	}
	defer f.Close()
	req := &tdxReportReq{reportData: in}
	if err := h.ioctl(f.Fd(), getReport0, unsafe.Pointer(req)); err != nil {
		return nil, evidence.DriverIoctl.Wrap(fmt.Errorf("ask the TDX device for a report: %w", err))
	}
	return req.tdreport[:], nil
}

// ioctl is the system call, which keeps what arg points to alive.
func ioctl(fd, command uintptr, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, command, uintptr(arg))
	runtime.KeepAlive(arg)
	if errno != 0 {
		return errno
	}
	return nil
}
