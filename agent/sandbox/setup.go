package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/agent/container"
	"github.com/coffer-cc/coffer/agent/ocispec"
	"github.com/coffer-cc/coffer/mount/storage"
)

// SetupRequest says what the pod is, before its first container.
type SetupRequest struct {
	ID            string // may be empty
	Hostname      string // may be empty, which keeps the guest's
	DNS           []string
	Storages      []storage.Storage
	GuestHookPath string // directory of the guest with hooks for every container; empty for none
	KernelModules []KernelModule
}

// KernelModule is one that the pod needs, with its parameters as modprobe(8)
// takes them.
type KernelModule struct {
	Name       string
	Parameters []string
}

func (r SetupRequest) check(confidential bool) error {
	if r.ID != "" {
		if err := checkID(r.ID); err != nil {
			return fmt.Errorf("sandbox_id: %w", err)
		}
	}
	switch {
	case confidential && len(r.KernelModules) > 0:
		return fmt.Errorf("kernel_modules: the host chooses none in a confidential guest: %w", errdefs.ErrPermissionDenied)
	case confidential && r.GuestHookPath != "":
		return fmt.Errorf("guest_hook_path: the host starts no programs as root of a confidential guest: %w", errdefs.ErrPermissionDenied)
	case r.GuestHookPath != "" && !filepath.IsAbs(r.GuestHookPath):
		return fmt.Errorf("guest_hook_path: no absolute path: %w", errdefs.ErrInvalidArgument)
	}
	return checkHostname(r.Hostname)
}

// owner of what belongs to the sandbox in the ledger of storages. No container
// can have this id.
const owner = "sandbox:"

// Setup prepares the pod: the namespaces that its containers share, the storages
// of all of them, name resolution. Only the first one clears away what an
// earlier agent left, and that means bundles of containers alone: a path below a
// mount, a socket or a file of somebody else stays.
//
// A client that got no answer may repeat it. The same name and id again change
// nothing, storages that are there are shared, and resolver lines are written
// anew. Another name or id is ErrFailedPrecondition. When it fails, what this
// call made is undone.
func (s *Sandbox) Setup(ctx context.Context, r SetupRequest) error {
	if err := r.check(s.deps.Confidential); err != nil {
		return fmt.Errorf("set up sandbox: %w", err)
	}
	if err := s.take(ctx); err != nil {
		return fmt.Errorf("set up sandbox: %w", err)
	}
	defer s.give()
	again, err := s.beginSetup(r)
	if err != nil {
		return fmt.Errorf("set up sandbox: %w", err)
	}
	var u undo
	if !again {
		err = s.firstSetup(ctx, r, &u)
	}
	if err == nil {
		err = s.repeatable(ctx, r)
	}
	if err == nil {
		return nil
	}
	err = fmt.Errorf("set up sandbox: %w", err)
	var half *storage.UndoError
	if undoErr := u.run(ctx); undoErr != nil || errors.As(err, &half) {
		s.Poison(errors.Join(err, undoErr))
	}
	return err
}

func (s *Sandbox) take(ctx context.Context) error {
	select {
	case <-s.setup:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Sandbox) give() { s.setup <- struct{}{} }

// beginSetup tells whether Setup succeeded before.
func (s *Sandbox) beginSetup(r SetupRequest) (again bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usableLocked(); err != nil {
		return false, err
	}
	if s.ready && (s.id != r.ID || s.host != r.Hostname) {
		return true, fmt.Errorf("sandbox is there with another id or hostname: %w", errdefs.ErrFailedPrecondition)
	}
	return s.ready, nil
}

func (s *Sandbox) firstSetup(ctx context.Context, r SetupRequest, u *undo) error {
	for i, m := range r.KernelModules { // they may bring what the rest needs
		if err := s.deps.LoadModule(ctx, m); err != nil {
			return fmt.Errorf("kernel_modules[%d]: %w", i, err)
		}
	}
	hooks, err := s.findHooks(ctx, r.GuestHookPath)
	if err != nil {
		return err
	}

	if err := os.MkdirAll(s.deps.Run, 0o755); err != nil {
		return fmt.Errorf("make run directory: %w", err)
	}
	if err := s.removeStale(); err != nil {
		return err
	}
	ns, err := pinNew(s.deps.Namespaces, r.Hostname)
	if err != nil {
		return err
	}
	u.push(func(context.Context) error { return s.unpinAll() })
	s.mu.Lock()
	s.shared.IPC, s.shared.UTS, s.hooks = ns.IPC, ns.UTS, hooks
	s.id, s.host, s.ready = r.ID, r.Hostname, true
	s.mu.Unlock()
	return nil
}

// repeatable are the steps that do no harm when they are done twice. Add undoes
// itself, and a resolver file that was written is no harm either.
func (s *Sandbox) repeatable(ctx context.Context, r SetupRequest) error {
	if len(r.DNS) > 0 {
		if err := s.deps.SetDNS(ctx, r.DNS); err != nil {
			return err
		}
	}
	volumes, err := s.deps.Storage.Add(ctx, owner, r.Storages)
	if err != nil {
		return err
	}
	slog.InfoContext(ctx, "sandbox set up", "id", r.ID, "storages", len(volumes))
	return nil
}

// unpinAll forgets the setup and lets go of the namespaces.
func (s *Sandbox) unpinAll() error {
	s.mu.Lock()
	ns := s.shared
	s.shared, s.hooks, s.ready, s.pidFrom = ocispec.Shared{}, container.GuestHooks{}, false, nil
	s.mu.Unlock()
	if err := unpinShared(ns); err != nil {
		return err
	}
	if ns == (ocispec.Shared{}) {
		return nil
	}
	if err := os.Remove(filepath.Clean(s.deps.Namespaces)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove directory of namespaces: %w", err)
	}
	return nil
}
