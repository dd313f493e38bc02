package vm

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/rpc/socket"
)

// A Transport is a way for the host to reach the guest's vsock.
type Transport string

const (
	// Auto takes the first of the following that this machine can do.
	Auto Transport = ""
	// Vhost is the host kernel's /dev/vhost-vsock.
	Vhost Transport = "vhost-vsock"
	// VhostUser is the vhost-device-vsock program, with a unix socket for the
	// host's side.
	VhostUser Transport = "vhost-device-vsock"
	// Loopback is no way at all: the guest has no vsock device, and whoever
	// wants to talk to its agent must run inside, over vsock_loopback.
	Loopback Transport = "loopback"
)

// Choose resolves Auto for this machine. program is as in Config.VsockDevice.
func Choose(t Transport, program string) Transport {
	if t != Auto {
		return t
	}
	if f, err := os.OpenFile("/dev/vhost-vsock", os.O_RDWR, 0); err == nil {
		f.Close()
		return Vhost
	}
	if _, err := vsockProgram(program); err == nil {
		return VhostUser
	}
	return Loopback
}

func vsockProgram(path string) (string, error) {
	if path == "" {
		path = "vhost-device-vsock"
	}
	found, err := exec.LookPath(path)
	if err != nil {
		return "", fmt.Errorf("find vsock device program: %w", err)
	}
	return found, nil
}

// startVsock gives the machine its vsock device and returns QEMU's arguments.
func (v *VM) startVsock(ctx context.Context, c Config) ([]string, error) {
	v.transport = Choose(c.Transport, c.VsockDevice)
	switch v.transport {
	case Vhost:
		cid, err := randomCID()
		if err != nil {
			return nil, err
		}
		v.address = func(port uint32) string { return fmt.Sprintf("vsock://%d:%d", cid, port) }
		v.dial = func(ctx context.Context, port uint32) (net.Conn, error) {
			return socket.Dial(ctx, fmt.Sprintf("vsock://%d:%d", cid, port))
		}
		return []string{"-device", fmt.Sprintf("vhost-vsock-pci,guest-cid=%d", cid)}, nil
	case VhostUser:
		program, err := vsockProgram(c.VsockDevice)
		if err != nil {
			return nil, err
		}
		front, back := filepath.Join(v.dir, "vsock"), filepath.Join(v.dir, "vhost-vsock")
		v.address = func(port uint32) string { return fmt.Sprintf("hvsock://%s:%d", front, port) }
		v.dial = func(ctx context.Context, port uint32) (net.Conn, error) {
			return socket.Dial(ctx, fmt.Sprintf("hvsock://%s:%d", front, port))
		}
		// Context ids are per program here, so any will do.
		err = v.helper(ctx, back, program, "--guest-cid", "3", "--socket", back, "--uds-path", front)
		return []string{"-chardev", "socket,id=vsock,path=" + escape(back), "-device", "vhost-user-vsock-pci,chardev=vsock"}, err
	case Loopback:
		return nil, nil
	}
	return nil, fmt.Errorf("transport %q is unknown: %w", v.transport, errdefs.ErrInvalidArgument)
}

// randomCID avoids the reserved low numbers and, most likely, other machines:
// the host's kernel has one space of ids, and QEMU reports a clash.
func randomCID() (uint32, error) {
	var b [4]byte
	if _, err := rand.Read(b[:]); err != nil {
		return 0, fmt.Errorf("choose context id: %w", err)
	}
	return binary.NativeEndian.Uint32(b[:])>>1 | 1<<16, nil
}

// startShares runs one virtiofsd per share.
func (v *VM) startShares(ctx context.Context, shares []Share) ([]string, error) {
	var args []string
	for i, s := range shares {
		program, err := virtiofsd()
		if err != nil {
			return nil, err
		}
		socket := filepath.Join(v.dir, fmt.Sprintf("fs%d", i))
		err = v.helper(ctx, socket, program, "--socket-path="+socket, "-o", "source="+s.Path, "-o", "cache=auto",
			"-o", "sandbox=chroot", "-o", "log_level=err", "-f")
		if err != nil {
			return nil, err
		}
		args = append(args, "-chardev", fmt.Sprintf("socket,id=fs%d,path=%s", i, escape(socket)),
			"-device", fmt.Sprintf("vhost-user-fs-pci,chardev=fs%d,tag=%s", i, escape(s.Tag)))
	}
	return args, nil
}

// virtiofsd is not in PATH: Debian keeps it with QEMU, or in libexec.
func virtiofsd() (string, error) {
	for _, path := range []string{"/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd"} {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("find virtiofsd: %w", errdefs.ErrNotFound)
}

// Address is where the host finds a port of the guest, in the spelling of
// rpc/socket; empty under Loopback.
func (v *VM) Address(port uint32) string {
	if v.address == nil {
		return ""
	}
	return v.address(port)
}

// Dial connects to a vsock port of the guest. It fails while nobody listens
// there; the caller decides how long to try again.
func (v *VM) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	if v.dial == nil {
		return nil, fmt.Errorf("dial guest: this vm has no vsock device: %w", errdefs.ErrFailedPrecondition)
	}
	return v.dial(ctx, port)
}
