package tee

import (
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence"
)

// uvioCB is struct uvio_ioctl_cb of the s390 kernel's asm/uvdevice.h. Addresses
// are pointers here, so that what they point to stays: the kernel has them as
// numbers of the same 64 bits.
type uvioCB struct {
	flags       uint32
	rc, rrc     uint16 // of the ultravisor
	argument    unsafe.Pointer
	argumentLen uint32
	_           [0x40 - 0x14]byte
}

// uvioAttest is struct uvio_attest of the same file.
type uvioAttest struct {
	blob          unsafe.Pointer
	measurement   unsafe.Pointer
	additional    unsafe.Pointer
	userData      [0x100]byte
	configUID     [16]byte
	blobLen       uint32
	measureLen    uint32
	additionalLen uint32 // of the room, and then of what was put there
	userDataLen   uint16
	_             uint16
}

// uvioATT is UVIO_IOCTL_ATT: _IOWR('u', 1, struct uvio_ioctl_cb).
const uvioATT = 3<<30 | unsafe.Sizeof(uvioCB{})<<16 | 'u'<<8 | 1

// uvOK is the return code of the ultravisor for success.
const uvOK = 1

// uvFaults are the other return codes that a verifier's request can cause.
var uvFaults = map[uint16]string{
	0x0106: "this machine does not know the version of the request",
	0x010a: "this machine does not know what the request asks for",
	0x010b: "this machine does not know the algorithm of the request",
	0x010c: "the request is not for this machine: it was made without its host key",
}

// uvMeasurement is what the ultravisor returns.
type uvMeasurement struct {
	measurement, additional []byte
	configUID               [16]byte // of this guest, new with each boot
}

// measureUV asks the ultravisor. A request that it refuses wraps
// errdefs.ErrFailedPrecondition.
func (h host) measureUV(req seRequest, user [64]byte) (m uvMeasurement, err error) {
	f, err := os.OpenFile(filepath.Join(h.root, "dev/uv"), os.O_RDWR, 0)
	if err != nil {
		return m, evidence.DriverDevice.Wrap(fmt.Errorf("open the ultravisor device (is the module uvdevice loaded?): %w", err))
	}
	defer f.Close()
	m.measurement, m.additional = make([]byte, req.Measurement), make([]byte, req.Additional)
	arg := &uvioAttest{
		blob: unsafe.Pointer(&req.Blob[0]), measurement: unsafe.Pointer(&m.measurement[0]), additional: unsafe.Pointer(&m.additional[0]),
		blobLen: uint32(len(req.Blob)), measureLen: req.Measurement, additionalLen: req.Additional, userDataLen: uint16(len(user)),
	}
	copy(arg.userData[:], user[:])
	cb := &uvioCB{argument: unsafe.Pointer(arg), argumentLen: uint32(unsafe.Sizeof(*arg))}
	if err := h.ioctl(f.Fd(), uvioATT, unsafe.Pointer(cb)); err != nil {
		return m, evidence.DriverIoctl.Wrap(fmt.Errorf("ask the ultravisor for a measurement: %w", err))
	}
	if cb.rc != uvOK {
		why, known := uvFaults[cb.rc]
		if !known {
			why = "it refuses"
		}
		return m, evidence.DriverReply.Wrap(fmt.Errorf("ask the ultravisor for a measurement: %s (codes %#x, %#x): %w", why, cb.rc, cb.rrc, errdefs.ErrFailedPrecondition))
	}
	if arg.additionalLen > req.Additional {
		return m, evidence.DriverReply.Wrap(fmt.Errorf("ask the ultravisor for a measurement: %d bytes of additional data in %d: %w", arg.additionalLen, req.Additional, errdefs.ErrDataLoss))
	}
	m.additional, m.configUID = m.additional[:arg.additionalLen], arg.configUID
	return m, nil
}
