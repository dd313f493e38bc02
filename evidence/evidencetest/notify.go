package evidencetest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Memory is that of a program which waits in a system call, by its addresses.
// Access to what is not there fails with EFAULT.
type Memory interface {
	io.ReaderAt
	io.WriterAt
}

// call is a system call that waits for its answer: struct seccomp_notif, and
// where the answer goes.
type call struct {
	notification
	listener int
}

type notification struct {
	id         uint64
	pid, flags uint32 // of the thread
	data       struct {
		nr   int32
		arch uint32
		ip   uint64
		args [6]uint64
	}
}

// auditArch tells system calls of this architecture from those of an older one
// that the same processor can run, which have other numbers.
var auditArch = map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}

// listen puts the calling thread and what it starts under a filter, and returns
// the file descriptor on which the calls arrive. A thread whose call has arrived
// can only be killed, as in a driver that waits for its hardware.
func listen(calls []uint32) (int, error) {
	arch, known := auditArch[runtime.GOARCH]
	if !known {
		return 0, fmt.Errorf("architecture %s: %w", runtime.GOARCH, errors.ErrUnsupported)
	}
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: 4, Size: 4}, // seccomp_data.arch
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: arch, SkipTrue: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW},
		bpf.LoadAbsolute{Off: 0, Size: 4}, // seccomp_data.nr
	}
	for _, nr := range calls {
		program = append(program,
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: nr, SkipTrue: 1},
			bpf.RetConstant{Val: unix.SECCOMP_RET_USER_NOTIF})
	}
	raw, err := bpf.Assemble(append(program, bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}))
	if err != nil {
		return 0, err
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return 0, errno
	}
	return int(fd), nil
}

func receive(listener int) (*call, error) {
	c := &call{listener: listener}
	return c, c.control(unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&c.notification))
}

func (c *call) control(command uintptr, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(c.listener), command, uintptr(arg))
	if errno != 0 {
		return errno
	}
	return nil
}

// respond sends struct seccomp_notif_resp.
func (c *call) respond(errno int32, flags uint32) error {
	r := struct {
		id    uint64
		value int64
		errno int32
		flags uint32
	}{id: c.id, errno: errno, flags: flags}
	return c.control(unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r))
}

// goesOn leaves the call to the kernel.
func (c *call) goesOn() error { return c.respond(0, unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE) }

// returns ends the call with 0 or the errno.
func (c *call) returns(err error) error {
	var errno unix.Errno
	if err != nil && !errors.As(err, &errno) {
		return errors.Join(err, c.respond(-int32(unix.EIO), 0))
	}
	return c.respond(-int32(errno), 0)
}

// returnsFile ends the call with a new file descriptor of the caller for fd.
func (c *call) returnsFile(fd int, flags uint32) error {
	add := struct {
		id                          uint64
		flags, from, to, newFDFlags uint32
	}{id: c.id, flags: unix.SECCOMP_ADDFD_FLAG_SEND, from: uint32(fd), newFDFlags: flags & unix.O_CLOEXEC}
	return c.control(unix.SECCOMP_IOCTL_NOTIF_ADDFD, unsafe.Pointer(&add))
}

// nodeLink is what /proc shows for an open device.
func nodeLink(node string) string { return "/memfd:" + filepath.Base(node) + " (deleted)" }

// open answers with a file that, like the device, cannot be polled, and answers
// ENOTTY to requests of others.
func (c *call) open(node string, flags uint64) error {
	fd, err := unix.MemfdCreate(filepath.Base(node), unix.MFD_CLOEXEC)
	if err != nil {
		return errors.Join(err, c.goesOn())
	}
	defer unix.Close(fd)
	return c.returnsFile(fd, uint32(flags))
}

// opened names what the caller's file descriptor is.
func (c *call) opened(fd uint64) string {
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", c.pid, int32(fd)))
	if err != nil {
		return ""
	}
	return link
}

// path reads a short path; of a longer one it returns the beginning.
func (c *call) path(at uint64) string {
	var b [64]byte
	n, _ := c.transfer(unix.ProcessVMReadv, b[:], int64(at))
	for i, x := range b[:n] {
		if x == 0 {
			return string(b[:i])
		}
	}
	return ""
}

// ReadAt reads the caller's memory.
func (c *call) ReadAt(b []byte, at int64) (int, error) {
	n, err := c.transfer(unix.ProcessVMReadv, b, at)
	return n, whole(n, b, err)
}

// WriteAt writes the caller's memory.
func (c *call) WriteAt(b []byte, at int64) (int, error) {
	n, err := c.transfer(unix.ProcessVMWritev, b, at)
	return n, whole(n, b, err)
}

func whole(n int, b []byte, err error) error {
	if err == nil && n < len(b) {
		return unix.EFAULT
	}
	return err
}

// transfer moves as much as there is. The caller cannot end in between without
// the error ENOENT, so it is never another process of the same number.
func (c *call) transfer(move func(int, []unix.Iovec, []unix.RemoteIovec, uint) (int, error), b []byte, at int64) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if err := c.control(unix.SECCOMP_IOCTL_NOTIF_ID_VALID, unsafe.Pointer(&c.id)); err != nil {
		return 0, err
	}
	local := []unix.Iovec{{Base: &b[0], Len: uint64(len(b))}}
	n, err := move(int(c.pid), local, pages(at, len(b)), 0)
	if err != nil {
		return 0, unix.EFAULT
	}
	return n, c.control(unix.SECCOMP_IOCTL_NOTIF_ID_VALID, unsafe.Pointer(&c.id))
}

// pages cuts a range at the ends of pages: of each part the kernel moves all or
// nothing.
func pages(at int64, size int) (parts []unix.RemoteIovec) {
	page := os.Getpagesize()
	for size > 0 {
		n := min(size, page-int(at)%page)
		parts = append(parts, unix.RemoteIovec{Base: uintptr(at), Len: n})
		at, size = at+int64(n), size-n
	}
	return parts
}
