package storage

import "context"

// Manager attaches storages and keeps the ledger of their owners.
type Manager struct {
	handlers map[string]Handler
	deps     Deps
}

// NewManager returns a Manager that dispatches to h, usually Handlers(d).
func NewManager(d Deps, h map[string]Handler) *Manager {
	return &Manager{handlers: h, deps: d}
}

// Add attaches the storages in order for owner and returns their volumes.
func (m *Manager) Add(ctx context.Context, owner string, ss []Storage) ([]Volume, error) {
	return nil, nil
}

// Release lets go of everything that owner holds. It is idempotent.
func (m *Manager) Release(ctx context.Context, owner string) error { return nil }

// ReleaseAll detaches everything, shared storages too, at the end of the sandbox.
func (m *Manager) ReleaseAll(ctx context.Context) error { return nil }

// UpdateEphemeral remounts ephemeral storages with new options.
func (m *Manager) UpdateEphemeral(ctx context.Context, ss []Storage) error { return nil }

// UndoError says that a failed request could not be taken back completely: the
// guest's mounts no longer match the ledger.
type UndoError struct {
	Cause error // why the request failed
	Undo  error // why taking it back failed
}

func (e *UndoError) Error() string   { return e.Cause.Error() + "; undo failed: " + e.Undo.Error() }
func (e *UndoError) Unwrap() []error { return []error{e.Cause, e.Undo} }
