package evidencetest

import (
	"errors"
	"fmt"
	"net"
	"os/exec"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Kernel starts a program that finds devices which this machine does not have.
// The program is any binary as it is: a seccomp filter hands the system calls in
// question to this process, which answers them for what it provides and lets all
// others go on. Children of the program find the same. What opens a device has
// to use openat, as everything written in Go does. The test needs root.
type Kernel struct {
	Devices []Device
	// Host are the services that sockets of AF_VSOCK reach at CID 2, by port.
	// Each connection is served and closed. With none such sockets are the
	// machine's own.
	Host map[uint32]func(net.Conn) error

	t    testing.TB
	done chan struct{} // closed when nothing runs under the filter any more

	mu      sync.Mutex // guards the rest
	sockets map[string]*vsocket
	fault   error
}

// Device is a character device.
type Device interface {
	Node() string // where programs open it
	// Ioctl answers one request with nil or a unix.Errno. Calls of several
	// threads come at the same time, and the caller waits until it returns.
	Ioctl(m Memory, command uint32, arg uint64) error
}

// NewKernel is for one Start. When the test ends nothing of what was started may
// run any longer.
func NewKernel(t testing.TB, devices ...Device) *Kernel {
	return &Kernel{t: t, Devices: devices, done: make(chan struct{}), sockets: map[string]*vsocket{}}
}

// endTime is how long the last process may take to be gone.
const endTime = 10 * time.Second

// Start is cmd.Start under the filter. The thread that starts the program has to
// carry the filter as well, so it is one that ends with that.
func (k *Kernel) Start(cmd *exec.Cmd) error {
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		listener, err := listen(k.calls())
		if err != nil {
			close(k.done)
			started <- fmt.Errorf("filter system calls: %w", err)
			return
		}
		go k.supervise(listener)
		started <- cmd.Start()
	}()
	k.t.Cleanup(k.end)
	return <-started
}

func (k *Kernel) calls() []uint32 {
	calls := []uint32{unix.SYS_OPENAT, unix.SYS_IOCTL}
	if k.Host != nil {
		calls = append(calls, unix.SYS_SOCKET, unix.SYS_CONNECT, unix.SYS_GETSOCKNAME, unix.SYS_GETPEERNAME)
	}
	return calls
}

func (k *Kernel) end() {
	select {
	case <-k.done:
	case <-time.After(endTime):
		k.t.Error("a process under the filter runs on")
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fault != nil {
		k.t.Error(k.fault)
	}
	for _, s := range k.sockets {
		s.far.Close()
	}
}

// supervise takes calls until the last process is gone.
func (k *Kernel) supervise(listener int) {
	defer close(k.done)
	defer unix.Close(listener)
	for {
		ready := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
		if _, err := unix.Poll(ready, -1); err != nil && !errors.Is(err, unix.EINTR) {
			k.fail(fmt.Errorf("wait for system calls: %w", err))
			return
		}
		switch {
		case ready[0].Revents&unix.POLLIN != 0:
			c, err := receive(listener)
			if err == nil {
				go k.answer(c)
			} else if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINTR) {
				k.fail(fmt.Errorf("receive a system call: %w", err))
				return
			}
		case ready[0].Revents != 0:
			return
		}
	}
}

// answer answers one call. A caller that is gone by then needs none.
func (k *Kernel) answer(c *call) {
	err := k.dispatch(c)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		k.fail(err)
	}
}

func (k *Kernel) dispatch(c *call) error {
	args := c.data.args
	switch c.data.nr {
	case unix.SYS_OPENAT:
		path := c.path(args[1])
		for _, d := range k.Devices {
			if path == d.Node() {
				return c.open(path, args[2])
			}
		}
	case unix.SYS_IOCTL:
		for _, d := range k.Devices {
			if c.opened(args[0]) == nodeLink(d.Node()) {
				return c.returns(d.Ioctl(c, uint32(args[1]), args[2]))
			}
		}
	case unix.SYS_SOCKET:
		if args[0] == unix.AF_VSOCK && args[1]&0xf == unix.SOCK_STREAM {
			return k.socket(c)
		}
	default:
		if s := k.vsocket(c); s != nil {
			return c.returns(k.onSocket(c, s))
		}
	}
	return c.goesOn()
}

func (k *Kernel) fail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fault = errors.Join(k.fault, err)
}
