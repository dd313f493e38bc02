// Package sandbox is the pod: it keeps the containers, the namespaces that they
// share, and the order in which a container comes to be and goes away.
//
//	reserve id ─▶ storages ─▶ devices ─▶ spec ─▶ bundle ─▶ container ─▶ created
//	     ▲            │           │         │        │          │
//	     └────────────┴── undo, in reverse order ────┴──────────┘
//
// Create is all or nothing, a Destroy or Remove that comes meanwhile cuts it
// short, and no lock is held while any of this happens: what is slow for one
// container is nothing to the others.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/agent/container"
	"github.com/coffer-cc/coffer/agent/devices"
	"github.com/coffer-cc/coffer/agent/ocispec"
	"github.com/coffer-cc/coffer/mount/device"
	"github.com/coffer-cc/coffer/mount/storage"
)

// Storages attaches and releases storages; *storage.Manager satisfies it.
type Storages interface {
	Add(ctx context.Context, owner string, ss []storage.Storage) ([]storage.Volume, error)
	Release(ctx context.Context, owner string) error
	ReleaseAll(ctx context.Context) error
	UpdateEphemeral(ctx context.Context, ss []storage.Storage) error
}

// Deps are the parts that a Sandbox joins. All are required except where noted.
type Deps struct {
	Containers container.Driver
	Options    container.Options // for every container
	Storage    Storages
	Images     ImageRules     // nil asks nobody
	Devices    *device.Finder // nil when nothing can be plugged in
	CDI        devices.CDI
	SetDNS     func(ctx context.Context, lines []string) error // called by Setup, with at least one line
	LoadModule func(ctx context.Context, m KernelModule) error // called by Setup for what the host names
	// Confidential guests, those on a TEE, take no code from the host: guest
	// hooks, hooks of a spec and kernel modules are refused whatever a policy
	// says.
	Confidential bool
	Run          string // ocispec.Base when empty
	// Reserved are the names directly below Run that are the guest's alone: no
	// container has such an id or a root below.
	Reserved   []string
	Namespaces string // where shared namespaces are pinned; ocispec.NamespacesDir when empty
}

// Sandbox is one pod. Its methods may be called at any time from several
// goroutines.
type Sandbox struct {
	deps Deps

	setup chan struct{} // holds one token, which Setup and Destroy take

	mu      sync.Mutex // guards what follows; never held across a call into another package
	entries map[string]*entry
	seq     int           // numbers entries in their order
	changed chan struct{} // closed and replaced when entries changes, for NextOOM
	ooms    []string      // memory kills in containers that are gone, not yet reported
	id      string        // the sandbox's own, which is the id of its pause container; "" before Setup
	host    string        // the host name that Setup got
	ready   bool          // Setup succeeded
	shared  ocispec.Shared
	hooks   container.GuestHooks // found by Setup
	pidFrom *entry               // the first container: its pid namespace is the shared one, or will be
	closed  bool                 // Destroy has begun
	poison  error
}

// New returns a sandbox without containers and namespaces. It touches nothing.
func New(d Deps) *Sandbox {
	if d.Run == "" {
		d.Run = ocispec.Base
	}
	if d.Namespaces == "" {
		d.Namespaces = ocispec.NamespacesDir
	}
	s := &Sandbox{
		deps: d, setup: make(chan struct{}, 1),
		entries: make(map[string]*entry), changed: make(chan struct{}),
	}
	s.setup <- struct{}{}
	return s
}

// Poison refuses further setups and creates for ever. It is for a guest whose
// state is not what the records say, for example because an undo failed.
func (s *Sandbox) Poison(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.poison == nil {
		s.poison = cause
		slog.Error("sandbox is inconsistent and takes no further containers", "error", cause)
	}
}

// usableLocked is the check at the door of whatever changes the guest.
func (s *Sandbox) usableLocked() error {
	if s.poison != nil {
		return fmt.Errorf("sandbox is inconsistent: %w: %w", s.poison, errdefs.ErrFailedPrecondition)
	}
	if s.closed {
		return fmt.Errorf("sandbox is being destroyed: %w", errdefs.ErrFailedPrecondition)
	}
	return nil
}

// UpdateEphemeral resizes storages of the kind "ephemeral".
func (s *Sandbox) UpdateEphemeral(ctx context.Context, ss []storage.Storage) error {
	return s.deps.Storage.UpdateEphemeral(ctx, ss)
}

// bundle is the directory of a container; its name is known to the host.
func (s *Sandbox) bundle(id string) string { return filepath.Join(s.deps.Run, id) }

// undo is what takes the steps of a failed call back.
type undo []func(context.Context) error

func (u *undo) push(f func(context.Context) error) { *u = append(*u, f) }

// run takes back in reverse, all of it whatever fails. The client's deadline
// does not count here: half an undo would be worse than a late answer.
func (u undo) run(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	var errs []error
	for i := len(u) - 1; i >= 0; i-- {
		errs = append(errs, u[i](ctx))
	}
	return errors.Join(errs...)
}
