package container

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// maxSignal is the kernel's SIGRTMAX.
const maxSignal = 64

// Signal sends sig to one process, or with SIGKILL and an empty exec id to
// everybody in the container, wherever they are in the pid namespaces and
// whether or not init still lives. It takes no lock that another call holds
// for long.
//
// SIGTERM to an init that does not mind it becomes SIGKILL: the kernel drops
// signals without a handler to the first process of a pid namespace
// (pid_namespaces(7)), and the pod would sit out its whole grace period.
//
// A process that has just exited counts as reached. Once somebody has been
// told its exit code, Signal fails with ErrNotFound.
func (c *Container) Signal(ctx context.Context, execID string, sig unix.Signal) error {
	if sig < 0 || sig > maxSignal {
		return fmt.Errorf("signal %d: %w", sig, errdefs.ErrInvalidArgument)
	}
	if execID == "" && sig == unix.SIGKILL {
		return c.killAll()
	}
	p, err := c.Process(execID)
	if err != nil {
		return err
	}
	if p.hasExited() {
		if p.waited.Load() {
			return fmt.Errorf("signal process: it has exited: %w", errdefs.ErrNotFound)
		}
		return nil
	}
	if p == c.init && sig == unix.SIGTERM && !c.initMinds(sig) {
		sig = unix.SIGKILL
	}
	if err := p.proc.Signal(sig); err != nil && !isGone(err) {
		return fmt.Errorf("signal process: %w", err)
	}
	if p == c.init && sig == unix.SIGKILL {
		return c.thawForDeath()
	}
	return nil
}

// killAll reaches every process of the container. After Destroy the cgroup may
// belong to another container, so it is left alone.
func (c *Container) killAll() error {
	if c.isDestroyed() {
		return fmt.Errorf("container is destroyed: %w", errdefs.ErrNotFound)
	}
	if err := c.jail.Signal(unix.SIGKILL); err != nil {
		return fmt.Errorf("kill container: %w", err)
	}
	c.thawed()
	return nil
}

// thawForDeath lets a killed init of a paused container die.
func (c *Container) thawForDeath() error {
	c.mu.Lock()
	paused := c.state == StatePaused
	c.mu.Unlock()
	if !paused {
		return nil
	}
	if err := c.jail.Freeze(false); err != nil {
		return fmt.Errorf("thaw container: %w", err)
	}
	c.thawed()
	return nil
}

// initMinds reports whether init catches, ignores or blocks sig. A held init
// is our own code, whose handlers mean nothing; and where the answer cannot be
// had, killing is what was asked for in the end.
func (c *Container) initMinds(sig unix.Signal) bool {
	c.mu.Lock()
	held := c.state == StateCreated
	c.mu.Unlock()
	if held {
		return false
	}
	f, err := os.Open("/proc/" + strconv.Itoa(c.init.Pid()) + "/status")
	if err != nil {
		return false
	}
	defer f.Close()
	return minds(f, sig)
}

// minds looks for sig in the signal masks of a /proc/PID/status.
func minds(status io.Reader, sig unix.Signal) bool {
	lines := bufio.NewScanner(status)
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ":")
		switch key {
		case "SigCgt", "SigIgn", "SigBlk":
			mask, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			if err == nil && mask&(1<<(sig-1)) != 0 {
				return true
			}
		}
	}
	return false
}
