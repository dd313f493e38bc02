package container

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// DefaultStateRoot is where the guest keeps the state of its containers.
const DefaultStateRoot = "/run/coffer/containers"

// LibcontainerOptions says how and where Libcontainer works.
type LibcontainerOptions struct {
	// StateRoot holds one directory per container while it lives. It must be
	// on a filesystem that containers cannot see. Empty is DefaultStateRoot.
	StateRoot string
	// Systemd hands cgroups whose path looks like slice:prefix:name to the
	// systemd that runs this agent as a service. The agent as init of the
	// guest has no systemd and writes cgroupfs itself.
	Systemd bool
	// NoPivotRoot is for a guest whose root is the initramfs itself, which
	// cannot be pivoted away from.
	NoPivotRoot bool
}

// Libcontainer is the Driver that makes real containers. The binary has to
// import agent/reexec, because every process starts as a copy of it.
type Libcontainer struct {
	opts LibcontainerOptions
}

// NewLibcontainer returns the driver. It touches nothing yet: the cgroup
// version of the guest is looked at on the first Create and never again, so
// the cgroup filesystem has to be mounted by then.
func NewLibcontainer(o LibcontainerOptions) *Libcontainer {
	if o.StateRoot == "" {
		o.StateRoot = DefaultStateRoot
	}
	return &Libcontainer{opts: o}
}

// Create makes the state directory of the container. Cgroup and namespaces
// come with the first process.
func (d *Libcontainer) Create(ctx context.Context, id string, spec *specs.Spec, prestart []specs.Hook) (Jail, error) {
	config, err := d.config(id, spec)
	if err != nil {
		return nil, err
	}
	ownHooks(ctx, config, prestart)
	lc, err := libcontainer.Create(d.opts.StateRoot, id, config)
	if err != nil {
		return nil, classify(err, errdefs.ErrInvalidArgument)
	}
	state, err := lc.State()
	if err != nil {
		return nil, errors.Join(err, lc.Destroy())
	}
	// Cloned, because the manager inside empties its own map on removal.
	paths := maps.Clone(state.CgroupPaths)
	control, err := newControl(config.Cgroups, paths)
	if err != nil {
		return nil, errors.Join(err, lc.Destroy())
	}
	limits := *config.Cgroups.Resources
	limits.SkipDevices = true
	return &jail{
		limits:  &limits,
		lc:      lc,
		config:  config,
		init:    spec.Process,
		dir:     filepath.Join(d.opts.StateRoot, id),
		paths:   paths,
		control: control,
	}, nil
}

// jail is a libcontainer container. libcontainer holds one mutex per container
// from the beginning to the end of every start, so only Spawn and Destroy go
// through it. Signals, the freezer, limits and statistics use the cgroup paths
// directly and cannot be held up.
type jail struct {
	lc      *libcontainer.Container
	config  *configs.Config
	init    *specs.Process // what exec inherits from
	dir     string
	paths   map[string]string  // cgroup directory by v1 controller; by "" under v2
	control cgroups.Manager    // for limits, which Update alone sets
	limits  *cgroups.Resources // what Update goes back to; used by Update alone
}

// Spawn starts p by re-executing this binary.
func (j *jail) Spawn(_ context.Context, p *specs.Process, io Stdio, init bool) (Proc, error) {
	lp, err := j.process(p, init)
	if err != nil {
		return nil, err
	}
	if io.Terminal {
		return j.spawnTerminal(lp)
	}
	lp.Stdin, lp.Stdout, lp.Stderr = io.Stdin, io.Stdout, io.Stderr
	return j.start(lp)
}

func (j *jail) start(lp *libcontainer.Process) (*process, error) {
	if err := j.lc.Start(lp); err != nil {
		return nil, classify(err, nil)
	}
	pid, err := lp.Pid()
	if err != nil {
		return nil, err
	}
	return &process{lp: lp, pid: pid}, nil
}

// Release opens the fifo that init waits at and takes the byte init writes.
// Opening for reading and writing never blocks and never shows an end of file,
// so a dead init costs the caller's ctx and nothing else.
func (j *jail) Release(ctx context.Context) error {
	path := filepath.Join(j.dir, "exec.fifo")
	fifo, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open exec fifo: %w", err)
	}
	defer fifo.Close()
	stop := context.AfterFunc(ctx, func() { fifo.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var b [1]byte
	_, err = fifo.Read(b[:])
	if errors.Is(err, os.ErrDeadlineExceeded) {
		// Init may have gone on and ended since: then its byte is here.
		if n, _ := readNow(fifo, b[:]); n == 0 {
			return context.Cause(ctx)
		}
		err = nil
	}
	if err != nil {
		return fmt.Errorf("read exec fifo: %w", err)
	}
	return os.Remove(path)
}

// Destroy leaves no process, no cgroup and no state.
func (j *jail) Destroy() error {
	if err := j.empty(); err != nil {
		return err
	}
	return classify(j.lc.Destroy(), nil)
}

// process is one that libcontainer started.
type process struct {
	lp      *libcontainer.Process
	pid     int
	console *os.File
}

func (p *process) Pid() int { return p.pid }

func (p *process) Signal(sig unix.Signal) error { return p.lp.Signal(sig) }

func (p *process) Console() *os.File { return p.console }

func (p *process) Wait() (int, error) {
	state, err := p.lp.Wait()
	if state == nil { // an *exec.ExitError comes with a state
		return 0, fmt.Errorf("wait for pid %d: %w", p.pid, err)
	}
	return exitCode(state), nil
}

// classify gives libcontainer's errors a class. Those it has no word for get
// otherwise, unless that is nil.
func classify(err, otherwise error) error {
	for _, c := range []struct{ from, to error }{
		{libcontainer.ErrExist, errdefs.ErrAlreadyExists},
		{libcontainer.ErrInvalidID, errdefs.ErrInvalidArgument},
		{libcontainer.ErrNotExist, errdefs.ErrNotFound},
		{libcontainer.ErrNotRunning, errdefs.ErrFailedPrecondition},
		{libcontainer.ErrRunning, errdefs.ErrFailedPrecondition},
		{libcontainer.ErrPaused, errdefs.ErrFailedPrecondition},
	} {
		if errors.Is(err, c.from) {
			return fmt.Errorf("%w: %w", c.to, err)
		}
	}
	if err != nil && otherwise != nil {
		return fmt.Errorf("%w: %w", otherwise, err)
	}
	return err
}

func exitCode(state *os.ProcessState) int {
	status, ok := state.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return state.ExitCode()
}
