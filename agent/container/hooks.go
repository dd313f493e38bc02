package container

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os/exec"
	"path/filepath"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

const (
	// hookTime is what a hook gets that names no time of its own.
	hookTime = 10 * time.Second
	// maxHookOutput is how much of a failed hook's output its error shows.
	maxHookOutput = 2 << 10
)

// GuestHooks are programs of the guest image that run for every container, as
// root in the agent's namespaces, with the container's state as JSON on their
// standard input. They come after the container's own hooks, and one that
// fails is logged: a guest with a broken hook still runs its pod.
type GuestHooks struct {
	Prestart, Poststart, Poststop []specs.Hook
}

// poststart runs once the user's program was let go. A hook of the spec that
// fails ends the container, as the runtime specification wants it.
func (c *Container) poststart(ctx context.Context) error {
	state := c.hookState(specs.StateRunning, c.init.Pid())
	if h := c.Spec().Hooks; h != nil {
		for _, hook := range h.Poststart {
			if err := runHook(ctx, hook, state); err != nil {
				return fmt.Errorf("poststart hook: %w", err)
			}
		}
	}
	runGuestHooks(ctx, c.opts.GuestHooks.Poststart, state)
	return nil
}

// poststop runs after the container is gone; nobody can do anything about a
// failure any more.
func (c *Container) poststop(ctx context.Context) {
	state := c.hookState(specs.StateStopped, 0)
	if h := c.Spec().Hooks; h != nil {
		runGuestHooks(ctx, h.Poststop, state)
	}
	runGuestHooks(ctx, c.opts.GuestHooks.Poststop, state)
}

func (c *Container) hookState(status specs.ContainerState, pid int) *specs.State {
	spec := c.Spec()
	return &specs.State{
		Version: specs.Version, ID: c.id, Status: status, Pid: pid,
		Bundle: bundleOf(spec), Annotations: spec.Annotations,
	}
}

// bundleOf is the directory that holds the spec's config.json: hooks such as
// NVIDIA's read it there.
func bundleOf(spec *specs.Spec) string { return filepath.Dir(spec.Root.Path) }

// runGuestHooks runs hooks whose failure is not fatal.
func runGuestHooks(ctx context.Context, hooks []specs.Hook, state *specs.State) {
	for _, h := range hooks {
		if err := runHook(ctx, h, state); err != nil {
			slog.WarnContext(ctx, "hook failed", "id", state.ID, "status", state.Status, "error", err)
		}
	}
}

// runHook runs one program to its end, or kills it when its time is over or ctx
// ends.
func runHook(ctx context.Context, h specs.Hook, state *specs.State) error {
	input, err := json.Marshal(state)
	if err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	limit := hookTime
	if h.Timeout != nil {
		limit = time.Duration(*h.Timeout) * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var output tail
	cmd := exec.CommandContext(ctx, h.Path)
	if len(h.Args) > 0 {
		cmd.Args = h.Args
	}
	cmd.Env = append([]string{}, h.Env...) // nil would mean the agent's own
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &output, &output
	cmd.WaitDelay = time.Second // for grandchildren that hold the output open
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", ctx.Err(), err)
		}
		return fmt.Errorf("run %s: %w: %s", h.Path, err, bytes.TrimSpace(output.kept))
	}
	return nil
}

// tail keeps the end of what is written to it.
type tail struct{ kept []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	if over := len(t.kept) - maxHookOutput; over > 0 {
		t.kept = t.kept[over:]
	}
	return len(p), nil
}
