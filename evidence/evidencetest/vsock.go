package evidencetest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// vsocket stands in for a socket of AF_VSOCK: the program holds one end of a
// pair, which it can poll like any socket, and this process the far one.
type vsocket struct {
	far  *os.File
	port uint32 // of the host, once connected; guarded by Kernel.mu
}

// hostCID and guestCID are the addresses of both sides.
const (
	hostCID  = 2
	guestCID = 3
)

// socket answers socket(AF_VSOCK, SOCK_STREAM, …).
func (k *Kernel) socket(c *call) error {
	flags := c.data.args[1]
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return errors.Join(err, c.goesOn())
	}
	defer unix.Close(pair[0])
	s := &vsocket{far: os.NewFile(uintptr(pair[1]), "vsock")}
	var st unix.Stat_t
	if err := errors.Join(unix.Fstat(pair[0], &st), unix.SetNonblock(pair[0], flags&unix.SOCK_NONBLOCK != 0)); err != nil {
		return errors.Join(err, s.far.Close(), c.goesOn())
	}
	k.mu.Lock()
	k.sockets[fmt.Sprintf("socket:[%d]", st.Ino)] = s
	k.mu.Unlock()
	return c.returnsFile(pair[0], uint32(flags))
}

// vsocket returns the socket that a call is about, nil if it is another one.
func (k *Kernel) vsocket(c *call) *vsocket {
	name := c.opened(c.data.args[0])
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.sockets[name]
}

// onSocket answers connect, getsockname and getpeername.
func (k *Kernel) onSocket(c *call, s *vsocket) error {
	switch c.data.nr {
	case unix.SYS_CONNECT:
		return k.connect(c, s)
	case unix.SYS_GETPEERNAME:
		k.mu.Lock()
		port := s.port
		k.mu.Unlock()
		if port == 0 {
			return unix.ENOTCONN
		}
		return c.writeName(hostCID, port)
	default:
		return c.writeName(guestCID, 1024)
	}
}

// connect reads struct sockaddr_vm: family u16, u16, port u32, cid u32, 4 bytes.
func (k *Kernel) connect(c *call, s *vsocket) error {
	var name [16]byte
	if _, err := c.ReadAt(name[:], int64(c.data.args[1])); err != nil {
		return err
	}
	cid, port := binary.NativeEndian.Uint32(name[8:]), binary.NativeEndian.Uint32(name[4:])
	serve := k.Host[port]
	if binary.NativeEndian.Uint16(name[:]) != unix.AF_VSOCK || cid != hostCID || serve == nil {
		return unix.ECONNRESET // as where nobody listens
	}
	conn, err := net.FileConn(s.far)
	if err != nil {
		return err
	}
	k.mu.Lock()
	s.port = port
	k.mu.Unlock()
	go func() {
		defer conn.Close()
		if err := serve(conn); err != nil {
			k.fail(fmt.Errorf("host at port %d: %w", port, err))
		}
	}()
	return s.far.Close()
}

func (c *call) writeName(cid, port uint32) error {
	name := binary.NativeEndian.AppendUint16(nil, unix.AF_VSOCK)
	name = binary.NativeEndian.AppendUint16(name, 0)
	name = binary.NativeEndian.AppendUint32(name, port)
	name = binary.NativeEndian.AppendUint32(name, cid)
	name = append(name, 0, 0, 0, 0)
	if _, err := c.WriteAt(name, int64(c.data.args[1])); err != nil {
		return err
	}
	_, err := c.WriteAt(binary.NativeEndian.AppendUint32(nil, uint32(len(name))), int64(c.data.args[2]))
	return err
}
