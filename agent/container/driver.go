package container

import (
	"context"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Driver makes jails. Libcontainer ships; containertest runs plain processes.
type Driver interface {
	// Create prepares the jail named id, without a process in it. It is all or
	// nothing. The spec is read only and stays as it is for the jail's life.
	//
	// The driver runs the hooks of the spec that come before the start, and
	// with the prestart ones of the spec those of the guest, whose failure it
	// logs. The hooks that come later are Container's.
	Create(ctx context.Context, id string, spec *specs.Spec, prestart []specs.Hook) (Jail, error)
}

// Jail is one created container. Signal, Freeze and Stats may be called at any
// time, from several goroutines, also after the first process has ended, and
// wait for nothing that another call holds. Container sees to it that the rest
// comes one at a time and that Destroy comes last.
type Jail interface {
	// Spawn starts a process. The one with init true comes first and is held
	// before its program until Release. An error carries what the child said,
	// for example that its program does not exist.
	Spawn(ctx context.Context, p *specs.Process, io Stdio, init bool) (Proc, error)
	// Release lets the held init run the user's program. It returns when init
	// goes on or when ctx ends; it does not notice by itself that init died.
	Release(ctx context.Context) error
	// Signal sends to every process of the jail, and to no other even if the
	// pid namespace is shared. An empty jail is no error.
	Signal(sig unix.Signal) error
	Freeze(frozen bool) error
	// Update applies the limits in r; what r leaves out stays as it is, and so
	// do device rules. When it fails, the limits are as before.
	Update(r *specs.LinuxResources) error
	Stats() (*Stats, error)
	// Destroy kills what is left and removes every trace. It may be repeated
	// when it failed.
	Destroy() error
}

// Proc is a process that Spawn started. Signal may be called at any time and
// reports os.ErrProcessDone or ESRCH when there is nobody left; exactly one
// goroutine calls Wait.
type Proc interface {
	Pid() int
	Signal(sig unix.Signal) error
	// Wait returns 0-255 as the process chose, or 128 plus the signal that
	// killed it.
	Wait() (code int, err error)
}

// Terminal is the further ability of a Proc that was spawned with
// Stdio.Terminal.
type Terminal interface {
	// Console is the master of the process's terminal, non-blocking. Whoever
	// asks owns it; it is handed out once.
	Console() *os.File
}

// OOMNotifier is the further ability of a Jail that hears of processes killed
// for lack of memory.
type OOMNotifier interface {
	// NotifyOOM calls found, once, from its own goroutine, after the first
	// kill. The caller ends the watch with stop, which waits for the goroutine.
	NotifyOOM(found func()) (stop func(), err error)
}

// Stdio is what the process gets as its standard streams. With Terminal the
// driver makes a terminal and the files are nil; otherwise all three are set.
// The driver does not close them.
type Stdio struct {
	Stdin, Stdout, Stderr *os.File
	Terminal              bool
}
