// Package store keeps unpacked layers on disk, by what they contain. A layer is
// unpacked once, whatever the number of containers and of pulls at the same
// time, and appears under its final name only when it is whole and verified.
//
// Layers in use are pinned by their users' names; the others stay until room is
// needed. Nothing survives a restart: what lies in the directory then has no
// witness, and is removed.
package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// Key names a layer. Scope keeps apart layers that only some may use: it is
// empty for layers that anybody may read, and else names the key that opened
// the layer, so that an image which merely claims the same contents cannot
// reach them.
type Key struct {
	DiffID digest.Digest
	Scope  string
}

// Layer is an unpacked layer.
type Layer struct {
	Dir string
	// Implied are directories whose owner and mode the layer leaves to those
	// below it; see format.Result.
	Implied []string
	Bytes   int64
}

// Fill unpacks a layer into dir, an empty directory that only it uses.
type Fill func(ctx context.Context, dir string) (Layer, error)

// Store is safe for concurrent use.
type Store struct {
	root string

	mu      sync.Mutex // guards what follows and the entries' fields
	entries map[Key]*entry
	serial  int
}

type entry struct {
	layer Layer
	ready bool
	// turn holds one token: whoever has it may fill or remove the layer.
	turn chan struct{}
	pins map[string]bool
	wait int // callers that want the entry to stay in the map
	used time.Time
}

// Open takes root over and empties it. The directory must be ours alone, with
// nothing mounted in it.
func Open(root string) (*Store, error) {
	s := &Store{root: root, entries: map[Key]*entry{}}
	for _, d := range []string{s.at("layers"), s.at("staging")} {
		if err := os.RemoveAll(d); err != nil {
			return nil, fmt.Errorf("empty layer store: %w", err)
		}
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("open layer store: %w", err)
		}
	}
	return s, nil
}

func (s *Store) at(parts ...string) string {
	return filepath.Join(append([]string{s.root}, parts...)...)
}

// Layer returns the layer, calling fill once if it is not there yet, and pins
// it for the user. Concurrent callers for one key share one fill; when that
// fails the next of them tries its own, since the layer may reach it by another
// image.
func (s *Store) Layer(ctx context.Context, k Key, user string, fill Fill) (Layer, error) {
	e := s.join(k)
	defer s.leave(k, e)
	select {
	case <-e.turn:
	case <-ctx.Done():
		return Layer{}, ctx.Err()
	}
	defer func() { e.turn <- struct{}{} }()
	if l, ok := s.pin(e, user); ok {
		return l, nil
	}
	l, err := s.fill(ctx, k, fill)
	if err != nil {
		return Layer{}, err
	}
	s.mu.Lock()
	e.layer, e.ready = l, true
	s.mu.Unlock()
	l, _ = s.pin(e, user)
	return l, nil
}

// Pin keeps a layer that is there for a further user.
func (s *Store) Pin(k Key, user string) error {
	s.mu.Lock()
	e := s.entries[k]
	s.mu.Unlock()
	if e != nil {
		if _, ok := s.pin(e, user); ok {
			return nil
		}
	}
	return fmt.Errorf("layer %s is not in the store: %w", k.DiffID, errdefs.ErrNotFound)
}

// Has tells whether the layer is there now.
func (s *Store) Has(k Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[k]
	return e != nil && e.ready
}

func (s *Store) join(k Key) *entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[k]
	if e == nil {
		e = &entry{turn: make(chan struct{}, 1), pins: map[string]bool{}}
		e.turn <- struct{}{}
		s.entries[k] = e
	}
	e.wait++
	return e
}

// leave drops an entry that came to nothing.
func (s *Store) leave(k Key, e *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.wait--; e.wait == 0 && !e.ready && s.entries[k] == e {
		delete(s.entries, k)
	}
}

func (s *Store) pin(e *entry, user string) (Layer, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !e.ready {
		return Layer{}, false
	}
	e.pins[user] = true
	e.used = time.Now()
	return e.layer, true
}

// fill runs f on a staging directory and moves that to its final name.
func (s *Store) fill(ctx context.Context, k Key, f Fill) (Layer, error) {
	name := s.name()
	staged := s.at("staging", name)
	if err := os.Mkdir(staged, 0o755); err != nil {
		return Layer{}, fmt.Errorf("stage layer %s: %w", k.DiffID, err)
	}
	l, err := f(ctx, staged)
	if err == nil {
		l.Dir = s.at("layers", name)
		err = os.Rename(staged, l.Dir)
	}
	if err != nil {
		return Layer{}, errors.Join(err, os.RemoveAll(staged))
	}
	return l, nil
}

// name returns a short name for a directory: overlayfs takes hundreds of paths
// at once, and what a layer is stands in memory.
func (s *Store) name() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serial++
	return fmt.Sprint(s.serial)
}

// Release takes the user's pins back. Layers without pins stay until Reclaim.
func (s *Store) Release(user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.entries {
		delete(e.pins, user)
	}
}

// Free returns how much the file system of the store can still take. Inodes
// count too: running out of those reads like a full disk.
func (s *Store) Free() (bytes, inodes int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(s.root, &st); err != nil {
		return 0, 0, fmt.Errorf("measure layer store: %w", err)
	}
	inodes = int64(st.Ffree)
	if st.Files == 0 { // a file system without a table of them
		inodes = 1 << 62
	}
	return int64(st.Bavail * uint64(st.Bsize)), inodes, nil
}

// Reserve makes room: it removes unpinned layers, those first that were not
// used for longest, until want bytes are free. When at least must bytes are
// free in the end that is enough; else it answers ErrResourceExhausted with
// both figures.
func (s *Store) Reserve(must, want int64) error {
	for {
		free, inodes, err := s.Free()
		if err != nil {
			return err
		}
		if free >= want && inodes > 0 {
			return nil
		}
		removed, err := s.removeOldest()
		switch {
		case err != nil:
			return err
		case removed:
		case free >= must && inodes > 0:
			return nil
		default:
			return fmt.Errorf("no room for layers in %s: at least %d bytes are needed, %d bytes and %d inodes are free: %w",
				s.root, must, free, inodes, errdefs.ErrResourceExhausted)
		}
	}
}

// removeOldest removes one layer that nobody uses or waits for.
func (s *Store) removeOldest() (bool, error) {
	k, e := s.takeOldest()
	if e == nil {
		return false, nil
	}
	if err := os.RemoveAll(e.layer.Dir); err != nil {
		return false, fmt.Errorf("remove layer %s: %w", k.DiffID, err)
	}
	return true, nil
}

// takeOldest takes the layer out of the books, so that whoever asks for it now
// unpacks it anew in another directory.
func (s *Store) takeOldest() (Key, *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var key Key
	var oldest *entry
	for k, e := range s.entries {
		if e.ready && e.wait == 0 && len(e.pins) == 0 && (oldest == nil || e.used.Before(oldest.used)) {
			key, oldest = k, e
		}
	}
	if oldest != nil {
		delete(s.entries, key)
	}
	return key, oldest
}
