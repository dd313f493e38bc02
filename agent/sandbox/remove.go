package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/containerd/errdefs"
)

// removal is one attempt to remove a container.
type removal struct {
	done chan struct{} // closed at its end
	err  error         // valid after that
}

// Remove kills the container and takes away all that belonged to it. It waits
// until that is done or ctx ends; the work goes on then, and whoever asks again
// joins it. A container that is still being created is cut short and gone when
// Remove returns. An unknown id is ErrNotFound.
//
// When a process outlives its kill, the container stays and may be removed
// again. A mount that does not go away does not keep the id: it is logged and
// stays in the ledger of storages.
func (s *Sandbox) Remove(ctx context.Context, cid string) error {
	r, err := s.beginRemove(ctx, cid)
	if err != nil {
		return err
	}
	if r == nil { // its Create was cut short and has undone everything
		return nil
	}
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return fmt.Errorf("remove container %s: still at it: %w", cid, ctx.Err())
	}
}

// beginRemove starts the removal of a container or finds the one that is under
// way.
func (s *Sandbox) beginRemove(ctx context.Context, cid string) (*removal, error) {
	s.mu.Lock()
	e, ok := s.entries[cid]
	if !ok {
		s.mu.Unlock()
		return nil, noContainer(cid, errdefs.ErrNotFound)
	}
	if e.phase == creating {
		s.mu.Unlock()
		return s.cutShort(ctx, e)
	}
	defer s.mu.Unlock()
	if e.phase == removing {
		return e.removal, nil
	}
	e.phase = removing
	e.removal = &removal{done: make(chan struct{})}
	// The removal outlives the call, and ends when the kernel has let go of the
	// container's processes, or after the time that Destroy gives them.
	go s.remove(context.WithoutCancel(ctx), e, e.removal)
	return e.removal, nil
}

// cutShort ends a Create. If it won the race, the container is removed as usual.
func (s *Sandbox) cutShort(ctx context.Context, e *entry) (*removal, error) {
	e.cancel(errRemoved)
	select {
	case <-e.settled:
	case <-ctx.Done():
		return nil, fmt.Errorf("remove container %s: still being created: %w", e.id, ctx.Err())
	}
	s.mu.Lock()
	gone := s.entries[e.id] != e
	s.mu.Unlock()
	if gone {
		return nil, nil
	}
	return s.beginRemove(ctx, e.id)
}

func (s *Sandbox) remove(ctx context.Context, e *entry, r *removal) {
	defer close(r.done)
	if err := e.c.Destroy(ctx); err != nil {
		r.err = fmt.Errorf("remove container %s: %w", e.id, err)
		s.mu.Lock()
		e.phase, e.removal = created, nil
		s.mu.Unlock()
		return
	}
	s.keepOOM(e)
	errs := []error{s.unsharePID(e)}
	if e.bound {
		errs = append(errs, s.unmountRoot(e.id))
	}
	for _, err := range append(errs,
		s.deps.Storage.Release(ctx, e.id),
		s.removeBundle(e.id),
	) {
		if err != nil {
			slog.WarnContext(ctx, "container left something behind", "id", e.id, "error", err)
		}
	}
	s.forget(e)
}

// Destroy ends the pod: no further container is accepted, those that are there
// go in reverse order, then what they shared. It goes on after a failure and
// reports all of them; it may be repeated, and does then what is left to do.
func (s *Sandbox) Destroy(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	ids := make([]*entry, 0, len(s.entries))
	for _, e := range s.entries {
		ids = append(ids, e)
	}
	s.mu.Unlock()
	if err := s.take(ctx); err != nil {
		return fmt.Errorf("destroy sandbox: %w", err)
	}
	defer s.give()
	slices.SortFunc(ids, func(a, b *entry) int { return b.seq - a.seq })
	var errs []error
	for _, e := range ids {
		if err := s.Remove(ctx, e.id); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	errs = append(errs, s.deps.Storage.ReleaseAll(ctx), s.unpinAll())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("destroy sandbox: %w", err)
	}
	return nil
}
