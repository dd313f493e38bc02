package device

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxUevent is larger than any event: UEVENT_BUFFER_SIZE in linux/kobject.h is
// 2048, and the header before it repeats the path.
const maxUevent = 8 << 10

// Run listens for devices that appear, until ctx ends, and hands them to Wait.
// It is called once.
func (f *Finder) Run(ctx context.Context) error {
	sock, err := listen()
	if err != nil {
		return fmt.Errorf("listen for uevents: %w", err)
	}
	defer sock.Close()
	stop := context.AfterFunc(ctx, func() { sock.Close() })
	defer stop()
	f.loadPresent(ctx)
	f.rescan() // whoever began to wait before the socket was open
	buf := make([]byte, maxUevent)
	for {
		n, fromKernel, err := receive(sock, buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			slog.WarnContext(ctx, "uevents were lost, scanning sysfs")
			f.loadPresent(ctx)
			f.rescan()
		case err != nil:
			return fmt.Errorf("receive uevent: %w", err)
		case fromKernel:
			if alias := newModalias(buf[:n]); alias != "" && f.Drivers != nil {
				f.Drivers.Plugged(ctx, alias)
			}
			if e, ok := parseUevent(buf[:n]); ok {
				f.hear(e)
			}
		}
	}
}

// loadPresent is for devices that came while nobody listened.
func (f *Finder) loadPresent(ctx context.Context) {
	if f.Drivers == nil {
		return
	}
	if err := f.Drivers.LoadPresent(ctx); err != nil {
		slog.WarnContext(ctx, "some devices have no driver", "error", err)
	}
}

// newModalias tells which driver a device asks for that has just appeared.
func newModalias(msg []byte) (alias string) {
	added := false
	for field := range bytes.SplitSeq(msg, []byte{0}) {
		switch key, value, _ := strings.Cut(string(field), "="); key {
		case "ACTION":
			added = value == "add"
		case "MODALIAS":
			alias = value
		}
	}
	if !added {
		return ""
	}
	return alias
}

// hear passes an event on to whom it is of use.
func (f *Finder) hear(e Event) {
	if e.Subsystem != "memory" {
		f.deliver(e)
		return
	}
	if f.Memory != nil {
		f.Memory(e.DevName)
	}
}

// listen opens the socket that the kernel sends its events to. It goes through
// os.File so that Close wakes a reader.
func listen() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, err
	}
	// Group 1 is the kernel's own; udev talks to group 2.
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "uevent"), nil
}

// receive reads one message. Any process with enough rights may send to the
// group; only port 0 is the kernel.
func receive(sock *os.File, buf []byte) (n int, fromKernel bool, err error) {
	conn, err := sock.SyscallConn()
	if err != nil {
		return 0, false, err
	}
	var recvErr error
	err = conn.Read(func(fd uintptr) (done bool) {
		var from unix.Sockaddr
		n, from, recvErr = unix.Recvfrom(int(fd), buf, 0)
		sender, ok := from.(*unix.SockaddrNetlink)
		fromKernel = ok && sender.Pid == 0
		return !errors.Is(recvErr, unix.EAGAIN) && !errors.Is(recvErr, unix.EINTR)
	})
	return n, fromKernel, errors.Join(err, recvErr)
}

// parseUevent reads a message of the kernel: "add@/devices/…" and KEY=value
// strings, each ended by a zero byte. Only the arrival of memory, or of a device
// that a Matcher can be about, makes an Event.
func parseUevent(msg []byte) (Event, bool) {
	var e Event
	var action, iface string
	header, rest, _ := bytes.Cut(msg, []byte{0})
	if !bytes.ContainsRune(header, '@') {
		return Event{}, false // udev's own format
	}
	for field := range bytes.SplitSeq(rest, []byte{0}) {
		key, value, _ := strings.Cut(string(field), "=")
		switch key {
		case "ACTION":
			action = value
		case "SUBSYSTEM":
			e.Subsystem = value
		case "DEVPATH":
			e.DevPath = value
		case "DEVNAME":
			e.DevName = value
		case "INTERFACE":
			iface = value
		}
	}
	known := true
	switch e.Subsystem {
	case "block", "vfio":
	case "net":
		e.DevName = iface
	case "pci", "ap", "memory":
		e.DevName = path.Base(e.DevPath)
	default:
		known = false
	}
	ok := action == "add" && known && strings.HasPrefix(e.DevPath, "/devices/") && path.Clean(e.DevPath) == e.DevPath &&
		e.DevName != "." && filepath.IsLocal(e.DevName)
	return e, ok
}
