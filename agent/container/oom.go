package container

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A v1 event says that the cgroup ran out of memory, and arrives before the
// kernel has chosen whom to kill. settle and settleTries bound the wait for
// the counter to follow. An event without a kill stays unreported.
const (
	settle      = 50 * time.Millisecond
	settleTries = 20
)

// watchOOMv1 asks for the eventfd of Documentation/admin-guide/cgroup-v1/memory.rst,
// section 10. dir is the memory cgroup.
func watchOOMv1(dir string, found func()) (stop func(), err error) {
	control, err := os.Open(filepath.Join(dir, "memory.oom_control"))
	if err != nil {
		return nil, fmt.Errorf("watch OOM: %w", err)
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		control.Close()
		return nil, fmt.Errorf("make eventfd: %w", err)
	}
	events := os.NewFile(uintptr(fd), "oom-events")
	line := fmt.Sprintf("%d %d", fd, control.Fd())
	err = os.WriteFile(filepath.Join(dir, "cgroup.event_control"), []byte(line), 0)
	control.Close() // the kernel keeps what it needs
	if err != nil {
		events.Close()
		return nil, fmt.Errorf("watch OOM: %w", err)
	}
	return watchOOM(events, filepath.Join(dir, "memory.oom_control"), found), nil
}

// watchOOMv2 waits for changes of memory.events; dir is the cgroup.
func watchOOMv2(dir string, found func()) (stop func(), err error) {
	file := filepath.Join(dir, "memory.events")
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make inotify: %w", err)
	}
	if _, err := unix.InotifyAddWatch(fd, file, unix.IN_MODIFY); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("watch %s: %w", file, err)
	}
	return watchOOM(os.NewFile(uintptr(fd), "oom-events"), file, found), nil
}

// watchOOM runs until the first kill, until the cgroup is gone, or until stop
// closes events.
func watchOOM(events *os.File, counter string, found func()) (stop func()) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer events.Close()
		for killed, alive := false, true; alive; killed, alive = nextOOM(events, counter) {
			if killed {
				found()
				return
			}
		}
	}()
	return sync.OnceFunc(func() {
		events.Close()
		<-ended
	})
}

// nextOOM waits for one event and reports whether somebody was killed since
// the beginning, and whether there is anything left to wait for.
func nextOOM(events *os.File, counter string) (killed, alive bool) {
	buf := make([]byte, unix.SizeofInotifyEvent+unix.NAME_MAX+1)
	events.SetReadDeadline(time.Time{})
	n, err := events.Read(buf)
	if err != nil {
		return false, false
	}
	if n >= unix.SizeofInotifyEvent && binary.NativeEndian.Uint32(buf[4:])&unix.IN_IGNORED != 0 {
		return false, false // the watched file is gone; inotify(7)
	}
	for range settleTries {
		count, err := countKills(counter)
		if err != nil || count > 0 {
			return err == nil, err == nil
		}
		events.SetReadDeadline(time.Now().Add(settle))
		if _, err := events.Read(buf); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return false, false
		}
	}
	return false, true
}
