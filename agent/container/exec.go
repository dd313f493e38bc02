package container

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// maxExecs bounds how many execs a container remembers. A health probe every
// second would otherwise fill the guest's memory within weeks.
const maxExecs = 1024

// Exec runs a program in the running container. execID must be free: an exec
// with this id that runs, or whose exit nobody has asked for, makes it fail
// with ErrAlreadyExists. What the child reports, such as a program that does
// not exist, is in the error.
func (c *Container) Exec(ctx context.Context, execID string, p *specs.Process) error {
	if execID == "" || p == nil {
		return fmt.Errorf("exec: id or process is missing: %w", errdefs.ErrInvalidArgument)
	}
	if err := c.begin(ctx); err != nil {
		return err
	}
	defer c.end()
	if err := c.require(StateRunning); err != nil {
		return fmt.Errorf("exec %q: %w", execID, err)
	}
	if old, err := c.Process(execID); err == nil && (old == c.init || !old.hasExited() || !old.waited.Load()) {
		return fmt.Errorf("exec %q: %w", execID, errdefs.ErrAlreadyExists)
	}
	started, err := c.spawn(ctx, p, false)
	if err != nil {
		return fmt.Errorf("exec %q: %w", execID, err)
	}
	for _, forgotten := range c.remember(execID, started) {
		forgotten.close()
	}
	return nil
}

// remember files the process under its id and returns those that had to go.
func (c *Container) remember(execID string, p *Process) (forgotten []*Process) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.execs[execID]; old != nil {
		forgotten = append(forgotten, old)
	}
	c.seq++
	p.seq = c.seq
	c.execs[execID] = p
	if len(c.execs) <= maxExecs {
		return forgotten
	}
	oldest := ""
	for id, e := range c.execs {
		if e.hasExited() && (oldest == "" || e.seq < c.execs[oldest].seq) {
			oldest = id
		}
	}
	if oldest != "" {
		forgotten = append(forgotten, c.execs[oldest])
		delete(c.execs, oldest)
	}
	return forgotten
}

// spawn starts a process with its streams and the goroutine that collects its
// exit code.
func (c *Container) spawn(ctx context.Context, spec *specs.Process, init bool) (*Process, error) {
	p := &Process{terminal: spec.Terminal, stall: c.opts.StallWindow, done: make(chan struct{}), gone: make(chan struct{})}
	start := c.spawnPiped
	if spec.Terminal {
		start = c.spawnTerminal
	}
	if err := start(ctx, p, spec, init); err != nil {
		return nil, err
	}
	go p.await(c.opts.DrainWindow)
	return p, nil
}

func (c *Container) spawnPiped(ctx context.Context, p *Process, spec *specs.Process, init bool) error {
	ends, err := openPipes(c.opts.PipeSize)
	if err != nil {
		return err
	}
	if p.proc, err = c.jail.Spawn(ctx, spec, ends.stdio(), init); err != nil {
		ends.close()
		return err
	}
	ends.handOver()
	p.stdin = newInput(ends.ours[0], false)
	p.stdout = newOutput(ends.ours[1], capacity(ends.ours[1]))
	p.stderr = newOutput(ends.ours[2], capacity(ends.ours[2]))
	return nil
}

func (c *Container) spawnTerminal(ctx context.Context, p *Process, spec *specs.Process, init bool) error {
	proc, err := c.jail.Spawn(ctx, spec, Stdio{Terminal: true}, init)
	if err != nil {
		return err
	}
	t, ok := proc.(Terminal)
	if !ok {
		_ = proc.Signal(unix.SIGKILL)
		_, err := proc.Wait()
		return errors.Join(fmt.Errorf("driver makes no terminals: %w", errdefs.ErrNotImplemented), err)
	}
	master := t.Console()
	p.proc = proc
	p.stdin = newInput(master, true)
	p.stdout = newOutput(master, consoleCapacity)
	return nil
}

// isGone reports whether err says that there is no process left to signal.
func isGone(err error) bool {
	return errors.Is(err, os.ErrProcessDone) || errors.Is(err, unix.ESRCH)
}
