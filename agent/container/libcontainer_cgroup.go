package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"
	"github.com/opencontainers/runc/libcontainer/specconv"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// dieWindow is how long processes may take to vanish after SIGKILL. Only one
// that hangs in the kernel, mostly on a dead disk, takes longer.
const dieWindow = 10 * time.Second

// newControl returns a manager of existing cgroups that shares no lock and no
// state with libcontainer's own. The v1 manager locks while it reads
// statistics, and notes the freezer's state among the resources it was given.
func newControl(c *cgroups.Cgroup, paths map[string]string) (cgroups.Manager, error) {
	own := *c
	resources := *c.Resources
	own.Resources = &resources
	return manager.NewWithPaths(&own, paths)
}

// Signal reaches all of the cgroup and its descendants.
func (j *jail) Signal(sig unix.Signal) error {
	if sig != unix.SIGKILL {
		return j.signalEach(sig)
	}
	// cgroup.kill is there from Linux 5.14, under v2 and beside v1 in hybrid
	// mode. It also catches what forks meanwhile.
	file := filepath.Join(j.paths[""], "cgroup.kill")
	if j.paths[""] == "" || os.WriteFile(file, []byte("1"), 0) != nil {
		return j.killFrozen()
	}
	return j.thaw()
}

// killFrozen stops the forking first, so that one look sees everybody.
func (j *jail) killFrozen() error {
	frozen := j.Freeze(true) // a kill of unfrozen processes is better than none
	err := j.signalEach(unix.SIGKILL)
	if frozen != nil && err == nil {
		err = j.signalEach(unix.SIGKILL) // whoever was forked during the first round
	}
	return errors.Join(err, j.thaw())
}

// thaw lets a killed process of a frozen v1 cgroup die; until then SIGKILL
// only waits.
func (j *jail) thaw() error {
	return ignoreGone(j.Freeze(false))
}

func (j *jail) signalEach(sig unix.Signal) error {
	pids, err := j.pids()
	if err != nil {
		return err
	}
	var errs []error
	for _, pid := range pids {
		if err := unix.Kill(pid, sig); err != nil && err != unix.ESRCH {
			errs = append(errs, fmt.Errorf("signal pid %d: %w", pid, err))
		}
	}
	return errors.Join(errs...)
}

// pids lists the cgroup and its descendants.
func (j *jail) pids() ([]int, error) {
	dir := j.paths[""]
	if !cgroups.IsCgroup2UnifiedMode() {
		dir = j.paths["devices"] // the one v1 controller that libcontainer insists on
	}
	pids, err := cgroups.GetAllPids(dir)
	return pids, ignoreGone(err)
}

// empty kills and waits until nobody is left. A cgroup with a zombie in it
// counts as empty for the kernel too.
func (j *jail) empty() error {
	pause := time.Millisecond
	for end := time.Now().Add(dieWindow); ; {
		pids, err := j.pids()
		if err != nil || len(pids) == 0 {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d processes outlive SIGKILL: %w", len(pids), errdefs.ErrUnavailable)
		}
		if err := j.Signal(unix.SIGKILL); err != nil {
			return err
		}
		time.Sleep(pause)
		pause = min(2*pause, 50*time.Millisecond)
	}
}

// Freeze makes a manager of its own each time: the manager notes the state, and a
// kill has to thaw while a pause still waits for the kernel.
func (j *jail) Freeze(frozen bool) error {
	state := cgroups.Thawed
	if frozen {
		state = cgroups.Frozen
	}
	freezer, err := newControl(j.config.Cgroups, j.paths)
	if err != nil {
		return err
	}
	return freezer.Freeze(state)
}

// Update writes the limits that r names and puts the former ones back when the
// kernel refuses one of them. It writes no device rules.
func (j *jail) Update(r *specs.LinuxResources) error {
	cg, err := specconv.CreateCgroupConfig(&specconv.CreateOpts{
		Spec: &specs.Spec{Linux: &specs.Linux{Resources: limitable(r)}},
	}, nil)
	if err != nil {
		return fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err)
	}
	cg.Resources.SkipDevices = true
	if err := j.control.Set(cg.Resources); err != nil {
		return errors.Join(fmt.Errorf("set limits: %w", err), j.control.Set(j.limits))
	}
	j.limits = cg.Resources
	return nil
}

// NotifyOOM watches the memory cgroup.
func (j *jail) NotifyOOM(found func()) (stop func(), err error) {
	if cgroups.IsCgroup2UnifiedMode() {
		return watchOOMv2(j.paths[""], found)
	}
	return watchOOMv1(j.paths["memory"], found)
}

// ignoreGone makes a cgroup that does not exist, or vanishes under the call,
// an empty one.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// countKills returns oom_kill of a memory.events or memory.oom_control file.
func countKills(file string) (uint64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, "oom_kill "); ok {
			return strconv.ParseUint(strings.TrimSpace(value), 10, 64)
		}
	}
	return 0, nil
}
