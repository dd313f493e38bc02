package doctor

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func (g Guest) vsock() Finding {
	cid, err := g.VsockCID()
	switch {
	case err == nil && cid > 2:
		return good("this guest is %d", cid)
	case err == nil && !g.VPorts:
		return good("no transport, and the agent listens elsewhere")
	case err == nil:
		return bad("give the guest a vsock device and its driver (CONFIG_VIRTIO_VSOCKETS)", "no transport to the host")
	case !g.VPorts:
		return good("not there, and the agent listens elsewhere")
	}
	return bad("build the kernel with CONFIG_VSOCKETS and CONFIG_VIRTIO_VSOCKETS, or load the modules; run as root", "%s", err)
}

// vsockCID asks the device; what is up to 2 is no guest's address, and shows
// that there is no transport.
func vsockCID() (uint32, error) {
	f, err := os.Open("/dev/vsock")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	cid, err := unix.IoctlGetUint32(int(f.Fd()), unix.IOCTL_VM_SOCKETS_GET_LOCAL_CID)
	if err == nil && cid == unix.VMADDR_CID_ANY {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("ask for the guest's address: %w", err)
	}
	return cid, nil
}
