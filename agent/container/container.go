// Package container runs containers and programs in them. It keeps what the
// host wants to know about them, streams, exit codes, memory kills, and leaves
// the work with namespaces and cgroups to a Driver.
//
//	New ──▶ created ──Start──▶ running ◀──Pause, Resume──▶ paused
//	           │                  │                          │
//	           └── init exits ────┴────▶ stopped ◀───────────┘
//	                                        │
//	any state ───────────Destroy────────────┴─▶ nothing left
//
// The rules that the host's runtime depends on are kept here, for any Driver:
// any number of callers may wait for an exit, however late; output ends after
// the exit and not before everything was read; a signal never waits for
// another call.
package container

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Options are the same for all containers of a guest. The zero value works.
type Options struct {
	// PipeSize is the capacity of each output pipe in bytes; 0 leaves it to
	// the kernel.
	PipeSize int
	// DrainWindow is how long after an exit readers wait for output that a
	// grandchild may still produce; 0 is half a second.
	DrainWindow time.Duration
	// StallWindow is how long after an exit the peer of an attached output may
	// take for one write; 0 is ten seconds. Until the exit it may take as long
	// as it likes, as with a pipe.
	StallWindow time.Duration
	// GuestHooks run for every container.
	GuestHooks GuestHooks
}

// State is where a container is in its life.
type State string

// The words are those of the OCI runtime specification.
const (
	StateCreated State = "created"
	StateRunning State = "running"
	StatePaused  State = "paused"
	StateStopped State = "stopped"
)

// Container is one container. All methods may be called at any time from
// several goroutines.
type Container struct {
	id   string
	jail Jail
	opts Options
	init *Process

	oom     chan struct{}
	stopOOM func()

	// life holds one token. Start, Exec, Pause, Resume, Update and Destroy
	// take it, so each of them sees the container at rest. Signals, streams,
	// waits and statistics do without. It is taken before mu.
	life chan struct{}

	mu        sync.Mutex // guards the fields below; never held across a call to the jail
	state     State      // as far as calls decide it; the exit of init comes on top
	unpaused  State      // what Resume goes back to
	destroyed bool
	spec      *specs.Spec
	execs     map[string]*Process // by exec id, oldest exited ones are forgotten
	seq       uint64              // numbers execs in their order
}

// New makes a container and holds its init before the user's program. It is
// all or nothing: when it fails, nothing is left and the id may be used again.
// The spec belongs to the container from here on. A ctx that ends does not
// stop what has begun.
func New(ctx context.Context, d Driver, id string, spec *specs.Spec, o Options) (*Container, error) {
	if spec == nil || spec.Process == nil || spec.Root == nil || spec.Linux == nil {
		return nil, fmt.Errorf("create container: spec lacks process, root or linux: %w", errdefs.ErrInvalidArgument)
	}
	if o.DrainWindow == 0 {
		o.DrainWindow = 500 * time.Millisecond
	}
	if o.StallWindow == 0 {
		o.StallWindow = 10 * time.Second
	}
	jail, err := d.Create(ctx, id, spec, o.GuestHooks.Prestart)
	if err != nil {
		return nil, fmt.Errorf("create container: %w", err)
	}
	c := &Container{
		id: id, jail: jail, opts: o, spec: spec,
		oom: make(chan struct{}), stopOOM: func() {},
		life: make(chan struct{}, 1), state: StateCreated,
		execs: make(map[string]*Process),
	}
	c.life <- struct{}{}
	if c.init, err = c.spawn(ctx, spec.Process, true); err != nil {
		return nil, errors.Join(fmt.Errorf("create container: %w", err), jail.Destroy())
	}
	c.watchOOM(ctx)
	return c, nil
}

// watchOOM has to be armed while init is held: a program can run out of memory
// within its first milliseconds. A guest without the memory controller runs
// containers all the same.
func (c *Container) watchOOM(ctx context.Context) {
	n, ok := c.jail.(OOMNotifier)
	if !ok {
		return
	}
	stop, err := n.NotifyOOM(func() { close(c.oom) })
	if errors.Is(err, os.ErrNotExist) {
		slog.DebugContext(ctx, "no memory controller, so no memory kills", "error", err)
		return
	}
	if err != nil {
		slog.WarnContext(ctx, "memory kills will go unnoticed", "error", err)
		return
	}
	c.stopOOM = stop
}

// ID is the name the host gave to the container.
func (c *Container) ID() string { return c.id }

// Spec is what the container runs by, with all updates. It is read only.
func (c *Container) Spec() *specs.Spec {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.spec
}

// InitPid is the number of the container's first process in the guest.
func (c *Container) InitPid() int { return c.init.Pid() }

// State tells where the container is now.
func (c *Container) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.destroyed || c.init.hasExited() {
		return StateStopped
	}
	return c.state
}

// OOM is closed when the kernel has killed a process of the container for lack
// of memory, once and for good.
func (c *Container) OOM() <-chan struct{} { return c.oom }

// Process finds a process by its exec id. The empty id and the container's own
// mean init. An exited process is found until the container is destroyed, its
// exec id is used again, or very many later ones have exited.
func (c *Container) Process(execID string) (*Process, error) {
	if execID == "" || execID == c.id {
		return c.init, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if p, ok := c.execs[execID]; ok {
		return p, nil
	}
	return nil, fmt.Errorf("exec %q: %w", execID, errdefs.ErrNotFound)
}

// Stats reads the container's counters. It takes no lock, so a read that hangs
// in the kernel holds up its caller alone.
func (c *Container) Stats(context.Context) (*Stats, error) {
	s, err := c.jail.Stats()
	if err != nil {
		return nil, fmt.Errorf("read statistics: %w", err)
	}
	return s, nil
}

// begin takes the life token; end gives it back.
func (c *Container) begin(ctx context.Context) error {
	select {
	case <-c.life:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *Container) end() { c.life <- struct{}{} }

// require fails unless the container is in one of the states.
func (c *Container) require(states ...State) error {
	now := c.State()
	for _, s := range states {
		if s == now {
			return nil
		}
	}
	return fmt.Errorf("container is %s: %w", now, errdefs.ErrFailedPrecondition)
}

func (c *Container) setState(s State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = s
}
