package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/agent/ocispec"
	"github.com/coffer-cc/coffer/mount"
)

// checkHostname bounds what sethostname(2) takes.
func checkHostname(name string) error {
	if len(name) > 64 {
		return fmt.Errorf("hostname of %d bytes: %w", len(name), errdefs.ErrInvalidArgument)
	}
	for _, c := range []byte(name) {
		if c <= ' ' || c >= 0x7f || c == '/' {
			return fmt.Errorf("hostname holds a byte that no name has: %w", errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// pinNew makes an IPC and a UTS namespace, with hostname in the latter unless it
// is empty, and pins them to files in dir.
func pinNew(dir, hostname string) (ocispec.Shared, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return ocispec.Shared{}, fmt.Errorf("make directory of namespaces: %w", err)
	}
	ns := ocispec.Shared{IPC: filepath.Join(dir, "ipc"), UTS: filepath.Join(dir, "uts")}
	result := make(chan error)
	go func() {
		// The thread is not unlocked: it is of no further use and ends here.
		runtime.LockOSThread()
		result <- pinThread(ns, hostname)
	}()
	if err := <-result; err != nil {
		return ocispec.Shared{}, errors.Join(err, unpinShared(ns))
	}
	return ns, nil
}

func pinThread(ns ocispec.Shared, hostname string) error {
	if err := unix.Unshare(unix.CLONE_NEWIPC | unix.CLONE_NEWUTS); err != nil {
		return fmt.Errorf("make namespaces: %w", err)
	}
	if hostname != "" {
		if err := unix.Sethostname([]byte(hostname)); err != nil {
			return fmt.Errorf("set hostname: %w", err)
		}
	}
	if err := pin("/proc/thread-self/ns/ipc", ns.IPC); err != nil {
		return err
	}
	return pin("/proc/thread-self/ns/uts", ns.UTS)
}

// pin keeps the namespace that proc shows alive at path. A mount that an earlier
// agent left there goes first; nobody of ours can be using it.
func pin(proc, path string) error {
	if err := unpin(path); err != nil {
		return err
	}
	if err := os.WriteFile(path, nil, 0o400); err != nil {
		return fmt.Errorf("make file for namespace: %w", err)
	}
	err := mount.Do(mount.Request{Source: proc, Options: mount.Options{Flags: unix.MS_BIND}}, path)
	if err != nil {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// unpinShared lets go of all of them. The kernel keeps a namespace as long as there
// are processes in it.
func unpinShared(n ocispec.Shared) error {
	var errs []error
	for _, path := range []string{n.IPC, n.UTS, n.PID} {
		if path != "" {
			errs = append(errs, unpin(path))
		}
	}
	return errors.Join(errs...)
}

func unpin(path string) error {
	if err := mount.UnmountLazy(path); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove file of namespace: %w", err)
	}
	return nil
}

// namespacesFor tells what a container joins. The first one gets its own pid
// namespace, which becomes the pod's; a later one joins that if the host wants
// it to. Where there is none to join it is refused: processes that expect
// company would be alone.
func (s *Sandbox) namespacesFor(e *entry, sharePID bool) (ocispec.Shared, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ns := s.shared
	if !sharePID || s.pidFrom == e {
		ns.PID = ""
	} else if ns.PID == "" {
		return ns, fmt.Errorf("sandbox_pidns: there is no shared pid namespace: %w", errdefs.ErrFailedPrecondition)
	}
	return ns, nil
}

// sharePID pins the pid namespace of the first container for the others. It is
// pinned and not named by the number of the init, which could come to mean
// another process.
func (s *Sandbox) sharePID(e *entry, pid int) error {
	s.mu.Lock()
	first := s.pidFrom == e
	s.mu.Unlock()
	if !first {
		return nil
	}
	if err := os.MkdirAll(s.deps.Namespaces, 0o700); err != nil {
		return fmt.Errorf("make directory of namespaces: %w", err)
	}
	path := filepath.Join(s.deps.Namespaces, "pid")
	if err := pin(fmt.Sprintf("/proc/%d/ns/pid", pid), path); err != nil {
		return fmt.Errorf("share pid namespace: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shared.PID = path
	return nil
}

// unsharePID ends the sharing when e was the first container: its init is gone,
// so nobody can enter the namespace any more.
func (s *Sandbox) unsharePID(e *entry) error {
	s.mu.Lock()
	path := s.shared.PID
	if s.pidFrom != e || path == "" {
		s.mu.Unlock()
		return nil
	}
	s.shared.PID = ""
	s.mu.Unlock()
	return unpin(path)
}
