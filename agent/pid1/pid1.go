// Package pid1 is the first process of the guest. It starts the agent as its
// child, collects every orphan the kernel hands to it, and powers the machine
// off when the agent ends. It keeps no state and imports nothing of ours: a
// fault here is a kernel panic, so there is as little here as possible.
//
// The agent is a process of its own because collecting orphans means waiting
// for anybody, and whoever does that takes exit codes away from libcontainer
// and os/exec; and because a Go panic in the agent is then an exit status with
// its text on the console, and not a dead kernel.
package pid1

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Role is the argument by which the agent knows that this package started it.
// Its parent being process 1 would not tell: so is that of a service.
const Role = "guest-agent"

// dieWindow bounds the wait for killed processes, and syncWindow the wait for
// disks, of which the host may have taken one away.
const (
	dieWindow  = 2 * time.Second
	syncWindow = 5 * time.Second
)

// Supervisor is the loop with the guest around it held by fields, so that
// tests can run it among plain processes.
type Supervisor struct {
	Path    string           // the program of the agent
	Argv    []string         // its arguments from the 0th; its environment is empty
	Console io.Writer        // for the last words
	Signals <-chan os.Signal // passed on to the agent
	// KillRest kills every other process of the guest.
	KillRest func() error
	Sync     func()
	// PowerOff does not return if it succeeds.
	PowerOff func() error
}

// Main runs the guest. Process 1 calls it before it looks at its arguments,
// which the host has written. It does not return; if the machine cannot be
// powered off it exits, and the kernel panics, which ends the guest as well.
func Main() {
	err := mountProc()
	console := openConsole()
	if err != nil {
		fmt.Fprintln(console, "coffer:", err)
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT)
	s := Supervisor{
		Path:     "/proc/self/exe",
		Argv:     []string{"coffer-agent", Role},
		Console:  console,
		Signals:  signals,
		KillRest: func() error { return unix.Kill(-1, unix.SIGKILL) },
		Sync:     unix.Sync,
		PowerOff: func() error { return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF) },
	}
	err = s.Run()
	fmt.Fprintln(console, "coffer: cannot power off:", err)
	os.Exit(1)
}

// Run returns only if PowerOff does, with its error.
func (s *Supervisor) Run() error {
	fmt.Fprintf(s.Console, "coffer: %s, powering off\n", s.supervise())
	s.stop()
	return s.PowerOff()
}

// supervise runs the agent and says how it ended.
func (s *Supervisor) supervise() string {
	protect()
	agent, err := syscall.ForkExec(s.Path, s.Argv, &syscall.ProcAttr{
		Env:   []string{}, // nil would be our own
		Files: []uintptr{0, 1, 2},
	})
	if err != nil {
		return "agent could not be started: " + err.Error()
	}
	done := make(chan struct{})
	defer close(done)
	go s.forward(agent, done)
	status, err := reap(agent)
	switch {
	case err != nil:
		return "agent is lost: " + err.Error()
	case status.Signaled():
		return "agent was killed by " + unix.SignalName(status.Signal())
	case status.ExitStatus() == 0:
		return "agent has ended"
	default:
		return "agent failed with exit status " + strconv.Itoa(status.ExitStatus())
	}
}

// protect asks the kernel to kill anybody else first when memory runs out. The
// agent inherits it, and gives its children a score of their own.
func protect() {
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("-999"), 0) // without it the guest runs as well
}

// forward passes signals on until the agent has ended.
func (s *Supervisor) forward(agent int, done <-chan struct{}) {
	for {
		select {
		case sig := <-s.Signals:
			if number, ok := sig.(syscall.Signal); ok {
				_ = syscall.Kill(agent, number)
			}
		case <-done:
			return
		}
	}
}

// reap collects whoever ends, until the agent does.
func reap(agent int) (syscall.WaitStatus, error) {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return 0, err
		case pid == agent:
			return status, nil
		}
	}
}

// stop ends what is left, and gives it and the disks a bounded time.
func (s *Supervisor) stop() {
	if err := s.KillRest(); err != nil && !errors.Is(err, unix.ESRCH) {
		fmt.Fprintln(s.Console, "coffer: kill what is left:", err)
	}
	for end := time.Now().Add(dieWindow); time.Now().Before(end); {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if err == syscall.ECHILD {
			break
		}
		if pid == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	synced := make(chan struct{})
	go func() {
		defer close(synced)
		s.Sync()
	}()
	select {
	case <-synced:
	case <-time.After(syncWindow):
		fmt.Fprintln(s.Console, "coffer: gave up on a disk that does not answer")
	}
}

// mountProc makes /proc/self/exe usable, unless it is.
func mountProc() error {
	if _, err := os.Lstat("/proc/self"); err == nil {
		return nil
	}
	if err := os.MkdirAll("/proc", 0o555); err != nil {
		return fmt.Errorf("make /proc: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return nil
}

// openConsole returns the machine's console. It must not become the
// controlling terminal, or a key press of the host would be a signal.
func openConsole() *os.File {
	console, err := os.OpenFile("/dev/console", os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return os.Stderr
	}
	return console
}
