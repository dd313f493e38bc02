// Package watch mirrors small trees of the host, such as ConfigMaps and
// Secrets, into memory of the guest. A container that watches its files by
// inotify sees changes in the mirror, which it never would on a file system
// that the host shares: the events do not cross.
//
// The tree belongs to the host and may change at any moment. It is read
// through descriptors, no symlink in it is followed, and what it may cost is
// bounded; see Limits.
package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/mount"
)

// Limits of a tree, those of the reference: entries count files, symlinks and
// directories with the root.
const (
	MaxEntries = 16
	MaxSize    = 1 << 20
)

// Interval is how often a tree is looked at.
const Interval = 2 * time.Second

// ErrTooLarge says that a tree is not one to mirror. What is mirrored of it
// from before stays.
var ErrTooLarge = fmt.Errorf("tree has more than %d entries or %d bytes: %w", MaxEntries, MaxSize, errdefs.ErrResourceExhausted)

// A Mirror copies the tree at Source to Target. Both exist and are of one kind,
// directory or file; the file system of Target is the guest's own. Its methods
// are not called concurrently.
type Mirror struct {
	Source, Target mount.Place

	have tree // what Target holds
	seen tree // what the last scan found
}

// Run repeats Sync at each tick until ctx ends. What fails is tried again at the
// next tick.
func (m *Mirror) Run(ctx context.Context, tick <-chan time.Time) {
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick:
		}
		err := m.Sync()
		if errors.Is(err, errChanging) {
			continue
		}
		if err != nil && !failing {
			slog.WarnContext(ctx, "watched tree is not mirrored", "source", m.Source.String(), "error", err)
		}
		failing = err != nil
	}
}

// errChanging says that a link led nowhere. Most likely the tree was changed
// during the scan, or the file system answered for the link from its cache and
// for the directory afresh; when the next scan finds the same, it is meant.
var errChanging = fmt.Errorf("a symlink leads nowhere, the tree may be changing: %w", errdefs.ErrUnavailable)

// Sync makes Target like Source. It changes nothing when Source is too large.
// Content comes before the links that lead to it, and what is gone is removed
// at the end: a reader who follows ..data of a ConfigMap sees the old files or
// the new ones. Files in directories appear whole, under their names; a file
// that is itself the Target is written in place, because containers have it
// mounted.
func (m *Mirror) Sync() error {
	source, err := m.Source.Open()
	if err != nil {
		return err
	}
	defer source.Close()
	want, err := scan(source)
	if err != nil {
		return fmt.Errorf("look at %q: %w", m.Source, err)
	}
	again := maps.Equal(want, m.seen)
	m.seen = want
	if want.dangling() && !again {
		return fmt.Errorf("look at %q: %w", m.Source, errChanging)
	}
	target, err := m.Target.Open()
	if err != nil {
		return err
	}
	defer target.Close()
	if m.have == nil {
		m.have = tree{}
	}
	c := copier{source, target}
	if err := m.remove(c, func(path string, e entry) bool { w, ok := want[path]; return ok && w.kind() != e.kind() }); err != nil {
		return err
	}
	for _, step := range []func(string, entry) error{c.directory, c.file, c.symlink} {
		if err := m.update(want, step); err != nil {
			return err
		}
	}
	return m.remove(c, func(path string, _ entry) bool { _, ok := want[path]; return !ok })
}

// update runs one step for all entries that changed, parents first.
func (m *Mirror) update(want tree, step func(string, entry) error) error {
	for _, path := range slices.Sorted(maps.Keys(want)) {
		e := want[path]
		if old, there := m.have[path]; there && old == e {
			continue
		}
		err := step(path, e)
		if errors.Is(err, errOtherKind) {
			continue
		}
		if err != nil {
			return fmt.Errorf("mirror %q: %w", path, err)
		}
		m.have[path] = e
	}
	return nil
}

// remove takes away the entries that obsolete names, each with all below it,
// children first.
func (m *Mirror) remove(c copier, obsolete func(string, entry) bool) error {
	gone := map[string]bool{}
	for _, path := range slices.Sorted(maps.Keys(m.have)) {
		above := strings.LastIndexByte(path, '/')
		gone[path] = obsolete(path, m.have[path]) || (above > 0 && gone[path[:above]])
	}
	for _, path := range slices.Backward(slices.Sorted(maps.Keys(gone))) {
		if !gone[path] {
			continue
		}
		if path == "" {
			return fmt.Errorf("the root has become something else: %w", errdefs.ErrFailedPrecondition)
		}
		if err := c.remove(path, m.have[path]); err != nil {
			return fmt.Errorf("remove %q from mirror: %w", path, err)
		}
		delete(m.have, path)
	}
	return nil
}
