// Package containertest runs containers as plain processes of the machine:
// no root, no namespaces, no cgroups, no image. What is left is what the rules
// of package container are about, and it behaves like the real thing: init is
// held until the start, a missing program fails the create, a signal to all
// reaches grandchildren, terminals are terminals.
package containertest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/agent/container"
)

// Driver makes jails of plain processes. The zero value works. Its fields are
// set before the first use.
type Driver struct {
	// FailCreate, if set, is asked before a container is made.
	FailCreate func(id string, spec *specs.Spec) error
	// HoldSpawn, if set, is called in the middle of every Spawn but the first
	// of a container. A test blocks it to see what waits and what does not.
	HoldSpawn func(id string)

	mu    sync.Mutex
	jails map[string]*Jail
}

// Jail is a container of plain processes.
type Jail struct {
	id     string
	driver *Driver

	mu        sync.Mutex
	procs     []*proc
	gate      *os.File // closing it without a byte lets a held init die
	released  bool
	frozen    bool
	destroyed bool
	updates   []*specs.LinuxResources
	oom       func()
}

// Create registers the jail. Two with one id are refused. Without namespaces
// there is no moment for the hooks before the start, so they do not run.
func (d *Driver) Create(_ context.Context, id string, spec *specs.Spec, _ []specs.Hook) (container.Jail, error) {
	if d.FailCreate != nil {
		if err := d.FailCreate(id, spec); err != nil {
			return nil, err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, taken := d.jails[id]; taken {
		return nil, fmt.Errorf("container %q: %w", id, errdefs.ErrAlreadyExists)
	}
	if d.jails == nil {
		d.jails = make(map[string]*Jail)
	}
	j := &Jail{id: id, driver: d}
	d.jails[id] = j
	return j, nil
}

// Jail returns the jail of a container that was created and not yet destroyed,
// or nil.
func (d *Driver) Jail(id string) *Jail {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.jails[id]
}

// Live counts the jails that were not destroyed.
func (d *Driver) Live() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.jails)
}

// Spawn starts the program of p with its arguments, environment and, if it
// exists on this machine, its working directory.
func (j *Jail) Spawn(_ context.Context, p *specs.Process, io container.Stdio, init bool) (container.Proc, error) {
	if len(p.Args) == 0 {
		return nil, fmt.Errorf("process args are empty: %w", errdefs.ErrInvalidArgument)
	}
	program, err := lookPath(p)
	if err != nil {
		return nil, err
	}
	if !init && j.driver.HoldSpawn != nil {
		j.driver.HoldSpawn(j.id)
	}
	cmd := exec.Command(program, p.Args[1:]...)
	var gate *os.File
	if init {
		if cmd, gate, err = held(program, p.Args[1:]); err != nil {
			return nil, err
		}
		defer cmd.ExtraFiles[0].Close()
	}
	cmd.Env = p.Env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if isDir(p.Cwd) {
		cmd.Dir = p.Cwd
	}
	started, err := j.start(cmd, io)
	if err != nil {
		if gate != nil {
			gate.Close()
		}
		return nil, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.procs = append(j.procs, started)
	if init {
		j.gate = gate
	}
	return started, nil
}

// held wraps the program into a shell that waits for a line on descriptor 3,
// and dies when there will be none.
func held(program string, args []string) (*exec.Cmd, *os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	script := `read go <&3 || exit 1; exec "$@" 3<&-`
	cmd := exec.Command("/bin/sh", append([]string{"-c", script, "init", program}, args...)...)
	cmd.ExtraFiles = []*os.File{r}
	return cmd, w, nil
}

// lookPath searches the PATH of the process and not of the test.
func lookPath(p *specs.Process) (string, error) {
	name := p.Args[0]
	dirs := []string{""}
	if !strings.Contains(name, "/") {
		dirs = []string{"/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"}
		for _, kv := range p.Env {
			if value, ok := strings.CutPrefix(kv, "PATH="); ok {
				dirs = filepath.SplitList(value)
			}
		}
	}
	for _, dir := range dirs {
		if path := filepath.Join(dir, name); unix.Access(path, unix.X_OK) == nil {
			return path, nil
		}
	}
	return "", &exec.Error{Name: name, Err: exec.ErrNotFound}
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// Release lets init go on.
func (j *Jail) Release(context.Context) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.gate == nil || j.released {
		return fmt.Errorf("init is not held: %w", errdefs.ErrFailedPrecondition)
	}
	j.released = true
	_, err := j.gate.WriteString("\n")
	return err
}

// Signal reaches the sessions of all processes that were spawned.
func (j *Jail) Signal(sig unix.Signal) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	var errs []error
	for _, p := range j.procs {
		if err := unix.Kill(-p.Pid(), sig); err != nil && err != unix.ESRCH {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Freeze stops or continues all processes.
func (j *Jail) Freeze(frozen bool) error {
	sig := unix.SIGCONT
	if frozen {
		sig = unix.SIGSTOP
	}
	err := j.Signal(sig)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.frozen = frozen
	return err
}

// Update notes r.
func (j *Jail) Update(r *specs.LinuxResources) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.updates = append(j.updates, r)
	return nil
}

// Updates returns what Update was called with.
func (j *Jail) Updates() []*specs.LinuxResources {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]*specs.LinuxResources(nil), j.updates...)
}

// Stats counts the processes that were spawned.
func (j *Jail) Stats() (*container.Stats, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return &container.Stats{
		Pids:   container.PidsStats{Current: uint64(len(j.procs))},
		Memory: container.MemoryStats{Stats: map[string]uint64{}},
	}, nil
}

// NotifyOOM keeps found for OOM.
func (j *Jail) NotifyOOM(found func()) (stop func(), err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.oom = found
	return func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.oom = nil
	}, nil
}

// OOM plays a kill for lack of memory. Only the first one is reported.
func (j *Jail) OOM() {
	j.mu.Lock()
	found := j.oom
	j.oom = nil
	j.mu.Unlock()
	if found != nil {
		found()
	}
}

// Destroy kills what is left and frees the id.
func (j *Jail) Destroy() error {
	err := j.Signal(unix.SIGKILL)
	j.mu.Lock()
	if j.gate != nil && !j.destroyed {
		j.gate.Close()
	}
	j.destroyed = true
	j.mu.Unlock()
	j.driver.mu.Lock()
	defer j.driver.mu.Unlock()
	delete(j.driver.jails, j.id)
	return err
}
