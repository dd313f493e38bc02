package container

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// rekill is how often Destroy kills again while another call holds the
// container. That call may be waiting for a process that came after the kill.
const rekill = 100 * time.Millisecond

var errInitExited = fmt.Errorf("init has exited: %w", errdefs.ErrFailedPrecondition)

// Start lets init run the user's program. It fails with ErrFailedPrecondition
// when init has died meanwhile, and when the container was started before.
func (c *Container) Start(ctx context.Context) error {
	if err := c.begin(ctx); err != nil {
		return err
	}
	defer c.end()
	if err := c.require(StateCreated); err != nil {
		return fmt.Errorf("start container: %w", err)
	}
	if err := c.release(ctx); err != nil {
		return fmt.Errorf("start container: %w", err)
	}
	c.setState(StateRunning)
	if err := c.poststart(ctx); err != nil {
		return errors.Join(fmt.Errorf("start container: %w", err), c.killAll())
	}
	return nil
}

// release gives up when init dies before it took the hint.
func (c *Container) release(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	result := make(chan error, 1)
	go func() { result <- c.jail.Release(ctx) }()
	select {
	case err := <-result:
		return err
	case <-c.init.done:
		cancel(errInitExited)
		return <-result
	}
}

// Pause freezes all processes. Programs that start meanwhile would hang in the
// frozen cgroup, so Exec is refused until Resume.
func (c *Container) Pause(ctx context.Context) error {
	if err := c.begin(ctx); err != nil {
		return err
	}
	defer c.end()
	if err := c.require(StateRunning, StateCreated); err != nil {
		return fmt.Errorf("pause container: %w", err)
	}
	if err := c.jail.Freeze(true); err != nil {
		return fmt.Errorf("pause container: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unpaused, c.state = c.state, StatePaused
	return nil
}

// Resume undoes Pause.
func (c *Container) Resume(ctx context.Context) error {
	if err := c.begin(ctx); err != nil {
		return err
	}
	defer c.end()
	if err := c.require(StatePaused); err != nil {
		return fmt.Errorf("resume container: %w", err)
	}
	if err := c.jail.Freeze(false); err != nil {
		return fmt.Errorf("resume container: %w", err)
	}
	c.thawed()
	return nil
}

// thawed records that the container is not frozen any more.
func (c *Container) thawed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == StatePaused {
		c.state = c.unpaused
	}
}

// Update changes limits. What r leaves out stays as it was; nil changes
// nothing.
func (c *Container) Update(ctx context.Context, r *specs.LinuxResources) error {
	if r == nil {
		return nil
	}
	if err := c.begin(ctx); err != nil {
		return err
	}
	defer c.end()
	if err := c.require(StateCreated, StateRunning, StatePaused); err != nil {
		return fmt.Errorf("update container: %w", err)
	}
	spec := *c.Spec()
	linux := *spec.Linux
	linux.Resources = mergeResources(linux.Resources, r)
	spec.Linux = &linux
	if err := c.jail.Update(linux.Resources); err != nil {
		return fmt.Errorf("update container: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spec = &spec
	return nil
}

// Destroy kills everything in the container and removes it; afterwards the id
// may be used again. Repeating it does nothing. When it fails, because a
// process does not die or ctx ended first, it may be repeated. Exit codes stay
// with the Process values that callers hold.
func (c *Container) Destroy(ctx context.Context) error {
	c.abandon()
	if err := c.beginKilling(ctx); err != nil {
		return fmt.Errorf("destroy container: %w", err)
	}
	defer c.end()
	if c.isDestroyed() {
		return nil
	}
	if err := c.remove(ctx); err != nil {
		return fmt.Errorf("destroy container: %w", err)
	}
	c.mu.Lock()
	c.destroyed = true
	c.mu.Unlock()
	c.init.close()
	for _, p := range c.execs { // stable: Exec needs the token we hold
		p.close()
	}
	c.poststop(ctx)
	return nil
}

func (c *Container) remove(ctx context.Context) error {
	if err := c.jail.Signal(unix.SIGKILL); err != nil {
		return err
	}
	// Outside of the container's cgroup there is init too: its last breath.
	if err := c.init.proc.Signal(unix.SIGKILL); err != nil && !isGone(err) {
		return err
	}
	late := time.NewTimer(dieWindow)
	defer late.Stop()
	select {
	case <-c.init.done:
	case <-late.C:
		return fmt.Errorf("init outlives SIGKILL: %w", errdefs.ErrUnavailable)
	case <-ctx.Done():
		return ctx.Err()
	}
	c.stopOOM()
	return c.jail.Destroy()
}

// abandon tells those who wait for a program that was never started that it
// never will be.
func (c *Container) abandon() {
	c.mu.Lock()
	defer c.mu.Unlock()
	held := c.state == StateCreated || c.state == StatePaused && c.unpaused == StateCreated
	if held && !c.destroyed && !c.init.hasExited() {
		c.init.abandon()
	}
}

// beginKilling takes the life token from a call that may be waiting for a
// process of this very container.
func (c *Container) beginKilling(ctx context.Context) error {
	for {
		step, cancel := context.WithTimeout(ctx, rekill)
		err := c.begin(step)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		if err := c.killAll(); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			return err
		}
	}
}

func (c *Container) isDestroyed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.destroyed
}
