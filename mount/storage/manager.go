package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/containerd/errdefs"
)

// Manager keeps track of which container uses which mount point. The host
// chooses the paths and may repeat them: the same storage twice shares one
// mount, a different storage on the same path is refused, and a mount in use
// by anyone stays. Its methods may be called at any time from anywhere.
type Manager struct {
	handlers map[string]Handler
	root     string
	reserved []string

	mu     sync.Mutex        // guards points, last and each point's fields as noted there; never held while mounting
	points map[string]*point // by path below the root
	last   int               // number of the newest point
}

// NewManager returns a Manager that dispatches to h, usually Handlers(d).
func NewManager(d Deps, h map[string]Handler) *Manager {
	reserved := d.Reserved
	if reserved == nil {
		reserved = []string{"image"}
	}
	return &Manager{handlers: h, root: cmp.Or(d.Root, DefaultRoot), reserved: reserved, points: make(map[string]*point)}
}

// UndoError says that a failed request could not be taken back completely: the
// guest's mounts no longer match the ledger, and the sandbox cannot be trusted
// with further ones.
type UndoError struct {
	Cause error // why the request failed
	Undo  error // why taking it back failed
}

func (e *UndoError) Error() string { return e.Cause.Error() + "; undo failed: " + e.Undo.Error() }

// Unwrap lets errors.Is see both.
func (e *UndoError) Unwrap() []error { return []error{e.Cause, e.Undo} }

// Add attaches the storages for owner in the order given, which matters: an
// overlay comes after its layers. It returns a volume for each, where the
// layers of one root file system count as one. When one fails,
// those attached before it by this call are detached in reverse; an *UndoError
// says that this failed too. owner is a container id, or any other name for
// what belongs to the sandbox. Volumes are detached by Release alone.
func (m *Manager) Add(ctx context.Context, owner string, ss []Storage) ([]Volume, error) {
	ss, err := gather(ss)
	if err != nil {
		return nil, fmt.Errorf("attach layers of a root file system: %w", err)
	}
	var done []claim
	volumes := make([]Volume, 0, len(ss))
	for _, s := range ss {
		c, err := m.add(ctx, owner, s)
		if err != nil {
			err = fmt.Errorf("attach storage %q of driver %q: %w", clip(s.MountPoint), clip(s.Driver), err)
			return nil, undone(err, m.undo(context.WithoutCancel(ctx), owner, done))
		}
		done = append(done, c)
		volumes = append(volumes, c.point.volume)
	}
	return volumes, nil
}

// claim is what one storage of a call changed, for its undo.
type claim struct {
	point    *point
	attached bool // this call mounted it
	entered  bool // this call made owner an owner
}

// add attaches one storage or joins the owners of the one that is there.
func (m *Manager) add(ctx context.Context, owner string, s Storage) (claim, error) {
	h, ok := m.handlers[s.Driver]
	if !ok {
		return claim{}, fmt.Errorf("failed to find the storage handler %q: %w", clip(s.Driver), errdefs.ErrNotImplemented)
	}
	where, err := m.check(h, owner, s)
	if err != nil {
		return claim{}, err
	}
	p, err := m.take(ctx, where)
	if err != nil {
		return claim{}, err
	}
	defer p.unlock()
	if p.volume != nil {
		if !same(p.storage, s) {
			return claim{}, fmt.Errorf("mount point is in use by a different storage: %w", errdefs.ErrAlreadyExists)
		}
		return claim{point: p, entered: m.enter(p, owner, s.Shared)}, nil
	}
	v, err := h.Attach(ctx, owner, s)
	if err != nil {
		m.forget(p)
		return claim{}, err
	}
	p.storage, p.volume = s, v
	return claim{p, true, m.enter(p, owner, s.Shared)}, nil
}

// undo takes the claims of a failed call back, newest first.
func (m *Manager) undo(ctx context.Context, owner string, done []claim) error {
	var errs []error
	for _, c := range slices.Backward(done) {
		if !c.entered {
			continue
		}
		// What others used meanwhile follows the usual rules.
		evenKept := func(p *point) bool { return c.attached && !p.joined }
		errs = append(errs, m.drop(ctx, c.point, owner, evenKept))
	}
	return errors.Join(errs...)
}

// Release lets go of everything that owner holds, newest first. A storage that
// nobody holds then is detached, unless it belongs to the pod: shared ones,
// emptyDirs. Release is idempotent, and after an error it may be called again
// for what was left.
func (m *Manager) Release(ctx context.Context, owner string) error {
	var errs []error
	for _, p := range m.pointsOf(owner) {
		if err := m.drop(ctx, p, owner, nil); err != nil {
			errs = append(errs, fmt.Errorf("release storage %q: %w", p.storage.MountPoint, err))
		}
	}
	return errors.Join(errs...)
}

// drop ends owner's hold on p and detaches p when that was the last. A point
// that is kept goes only if evenKept says so.
func (m *Manager) drop(ctx context.Context, p *point, owner string, evenKept func(*point) bool) error {
	if err := p.lock(ctx); err != nil {
		return err
	}
	defer p.unlock()
	m.mu.Lock()
	held := p.owners[owner]
	gone := p.gone || len(p.owners) > 1 || !held
	kept := p.kept && (evenKept == nil || !evenKept(p))
	if gone || kept {
		delete(p.owners, owner)
	}
	m.mu.Unlock()
	if gone || kept {
		return nil
	}
	// The owner stays in the ledger when this fails, so that Release can be
	// tried again.
	return m.detach(ctx, p)
}

// detach ends p. The caller holds its lock.
func (m *Manager) detach(ctx context.Context, p *point) error {
	if p.volume != nil { // nil after a panic in Attach
		if err := p.volume.Detach(ctx); err != nil {
			return err
		}
	}
	m.forget(p)
	return nil
}

// ReleaseAll detaches everything, shared or not, at the end of the sandbox. It
// goes on after an error and may be called again.
func (m *Manager) ReleaseAll(ctx context.Context) error {
	var errs []error
	for _, p := range m.all() {
		if err := p.lock(ctx); err != nil {
			return errors.Join(append(errs, err)...)
		}
		if !p.gone {
			if err := m.detach(ctx, p); err != nil {
				errs = append(errs, fmt.Errorf("release storage %q: %w", p.storage.MountPoint, err))
			}
		}
		p.unlock()
	}
	return errors.Join(errs...)
}

// UpdateEphemeral remounts ephemeral storages that are attached with the
// options given, which is how the host resizes them. Without options a storage
// stays as it is; an empty list is fine and cheap. Nothing is undone.
func (m *Manager) UpdateEphemeral(ctx context.Context, ss []Storage) error {
	for _, s := range ss {
		if s.Driver != "ephemeral" {
			return fmt.Errorf("update storage %q: driver %q cannot be updated: %w", clip(s.MountPoint), clip(s.Driver), errdefs.ErrInvalidArgument)
		}
		if err := m.update(ctx, s); err != nil {
			return fmt.Errorf("update storage %q: %w", clip(s.MountPoint), err)
		}
	}
	return nil
}

func (m *Manager) update(ctx context.Context, s Storage) error {
	place, err := m.place(s)
	if err != nil {
		return err
	}
	p := m.find(place.Rel())
	if p == nil {
		return fmt.Errorf("no storage is attached there: %w", errdefs.ErrFailedPrecondition)
	}
	if err := p.lock(ctx); err != nil {
		return err
	}
	defer p.unlock()
	if p.gone || p.storage.Driver != s.Driver || p.storage.FSType != s.FSType {
		return fmt.Errorf("no such storage is attached there: %w", errdefs.ErrFailedPrecondition)
	}
	if len(s.Options) == 0 {
		return nil
	}
	slog.InfoContext(ctx, "remounting storage", "path", place.String(), "options", s.Options)
	return remount(place, s)
}

// clip bounds the host's own words in an error.
func clip(s string) string {
	if len(s) > 256 {
		return s[:256] + "…"
	}
	return s
}
