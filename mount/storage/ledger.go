package storage

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/mount"
)

// point is an entry of the ledger: a mount point in use, or about to be.
type point struct {
	rel     string // path below the root
	number  int    // rises with the age of the ledger
	private bool   // one owner's own: nothing is mounted inside

	busy chan struct{} // holds one token while somebody attaches, detaches or looks

	// Guarded by busy.
	storage Storage
	volume  Volume // nil until attached
	gone    bool   // no longer in the ledger: look again

	// Guarded by Manager.mu.
	owners map[string]bool
	kept   bool // stays without owners
	joined bool // a second owner came
}

// lock waits for whoever works on p, which may be pulling an image. A free lock
// is taken even when ctx has ended: the undo of a cancelled request needs it.
func (p *point) lock(ctx context.Context) error {
	select {
	case p.busy <- struct{}{}:
		return nil
	default:
	}
	select {
	case p.busy <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for mount point: %w", context.Cause(ctx))
	}
}

func (p *point) unlock() { <-p.busy }

// spot is a checked mount point.
type spot struct {
	rel     string
	private bool
}

// place returns where s wants to go, if that is below the root and not in a
// part that is not the host's to mount on.
func (m *Manager) place(s Storage) (mount.Place, error) {
	p, err := mount.At(m.root, s.MountPoint)
	if err != nil {
		return p, err
	}
	if part, _, _ := strings.Cut(p.Rel(), "/"); slices.Contains(m.reserved, part) {
		return p, fmt.Errorf("path is reserved: %w", errdefs.ErrPermissionDenied)
	}
	if parts := strings.SplitN(p.Rel(), "/", 3); len(parts) > 1 && parts[1] == layersDir {
		return p, fmt.Errorf("path is among layers: %w", errdefs.ErrPermissionDenied)
	}
	return p, nil
}

// check looks at what a request says about itself.
func (m *Manager) check(h Handler, owner string, s Storage) (spot, error) {
	p, err := m.place(s)
	if err != nil {
		return spot{}, err
	}
	own, ok := h.(private)
	if !ok {
		return spot{rel: p.Rel(), private: len(s.layers) > 0}, nil
	}
	only, err := own.only(owner)
	if err != nil {
		return spot{}, err
	}
	if p.String() != only {
		return spot{}, fmt.Errorf("driver %s mounts on %s alone: %w", s.Driver, only, errdefs.ErrPermissionDenied)
	}
	return spot{rel: p.Rel(), private: true}, nil
}

// take returns the point at w with its lock held, a new one if there is none.
func (m *Manager) take(ctx context.Context, w spot) (*point, error) {
	for {
		p, err := m.enroll(w)
		if err != nil {
			return nil, err
		}
		if err := p.lock(ctx); err != nil {
			return nil, err
		}
		if !p.gone {
			return p, nil
		}
		p.unlock()
	}
}

// enroll finds or creates the entry for w. It refuses a mount that would cover
// another, and one inside a private mount: either would change what somebody
// sees at a path that was checked before.
func (m *Manager) enroll(w spot) (*point, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.points[w.rel]; p != nil {
		return p, nil
	}
	for rel, p := range m.points {
		if strings.HasPrefix(rel, w.rel+"/") {
			return nil, fmt.Errorf("it would cover the storage at %q: %w", rel, errdefs.ErrFailedPrecondition)
		}
		if p.private && strings.HasPrefix(w.rel, rel+"/") {
			return nil, fmt.Errorf("it lies inside the image at %q: %w", rel, errdefs.ErrPermissionDenied)
		}
	}
	m.last++
	p := &point{rel: w.rel, number: m.last, private: w.private, busy: make(chan struct{}, 1), owners: make(map[string]bool)}
	m.points[w.rel] = p
	return p, nil
}

// enter makes owner one of p's owners and tells whether it was none before.
// The caller holds p's lock.
func (m *Manager) enter(p *point, owner string, shared bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := p.volume.(keeper); ok || shared {
		p.kept = true
	}
	if p.owners[owner] {
		return false
	}
	p.joined = p.joined || len(p.owners) > 0
	p.owners[owner] = true
	return true
}

// forget takes p out of the ledger. The caller holds p's lock.
func (m *Manager) forget(p *point) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.points, p.rel)
	p.gone = true
}

func (m *Manager) find(rel string) *point {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.points[rel]
}

// pointsOf lists what owner holds, newest first.
func (m *Manager) pointsOf(owner string) []*point {
	return slices.DeleteFunc(m.all(), func(p *point) bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return !p.owners[owner]
	})
}

// all lists the ledger, newest first, so that what lies inside a mount comes
// before it.
func (m *Manager) all() []*point {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]*point, 0, len(m.points))
	for _, p := range m.points {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *point) int { return b.number - a.number })
	return out
}

// same reports whether two requests mean one storage. Flags such as ro are not
// compared: containers of a pod mount one volume each in its own way, and the
// bind in the container's own spec sees to that. Nor is the size of memory: for
// huge pages shims send the limit of the container that asks.
func same(a, b Storage) bool {
	if a.Driver != b.Driver || a.Source != b.Source || a.FSType != b.FSType || !slices.Equal(a.DriverOptions, b.DriverOptions) {
		return false
	}
	if !slices.EqualFunc(a.layers, b.layers, sameLayer) {
		return false
	}
	if a.Driver == "ephemeral" {
		return true
	}
	oa, errA := mount.ParseOptions(a.Options)
	ob, errB := mount.ParseOptions(b.Options)
	return errA == nil && errB == nil && oa.Data == ob.Data
}

// sameLayer compares every word of a layer: what is verified stands there.
func sameLayer(a, b Storage) bool {
	return a.Driver == b.Driver && a.Source == b.Source && a.FSType == b.FSType && a.MountPoint == b.MountPoint && slices.Equal(a.Options, b.Options)
}
