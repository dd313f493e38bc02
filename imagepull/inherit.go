package imagepull

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/imagepull/store"
)

// inherited is a directory that a layer implies and a layer below describes.
// Overlayfs shows owner and mode of the former, which are made up: /tmp would
// lose its sticky bit because a layer put a file there. So they are set again
// on the mounted root file system. The top directory always takes part, because
// overlayfs shows that of the writable layer.
type inherited struct {
	path     string
	uid, gid int
	mode     uint32
	times    [2]unix.Timespec
}

// inherit finds those directories. layers are bottom first.
func inherit(ctx context.Context, layers []store.Layer) ([]inherited, error) {
	s, err := openStack(layers)
	defer s.close()
	if err != nil {
		return nil, err
	}
	var out []inherited
	if d, ok := s.describedBelow(".", len(layers)); ok {
		out = append(out, d)
	}
	for i := len(layers) - 1; i > 0; i-- {
		for _, p := range layers[i].Implied {
			if err := ctx.Err(); err != nil { // many directories of many layers take a while
				return nil, err
			}
			if p == "." || s.decidedAbove(p, i) {
				continue
			}
			if s.look(i, p) == covers || s.opaqueParent(i, p) == covers {
				continue
			}
			if d, ok := s.describedBelow(p, i); ok {
				out = append(out, d)
			}
		}
	}
	return out, nil
}

// stack is the layers' directories, opened.
type stack struct {
	layers []store.Layer
	fds    []int
}

func openStack(layers []store.Layer) (*stack, error) {
	s := &stack{layers: layers}
	for _, l := range layers {
		fd, err := unix.Open(l.Dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return s, fmt.Errorf("open layer: %w", err)
		}
		s.fds = append(s.fds, fd)
	}
	return s, nil
}

func (s *stack) close() {
	for _, fd := range s.fds {
		unix.Close(fd)
	}
}

// sight is what a layer says about a path.
type sight int

const (
	nothing sight = iota // lower layers decide
	covers               // it hides lower layers: deleted, no directory, or opaque
	shows                // a directory that merges with lower ones
)

func (s *stack) look(layer int, p string) sight {
	fd, err := beneath(s.fds[layer], p)
	switch {
	case errors.Is(err, unix.ENOENT):
		return s.opaqueParent(layer, p)
	case err != nil:
		return covers
	}
	defer unix.Close(fd)
	if isOpaque(fd) {
		return covers
	}
	return shows
}

// opaqueParent looks for the mark on the directories above a path.
func (s *stack) opaqueParent(layer int, p string) sight {
	for p != "." {
		p = path.Dir(p)
		fd, err := beneath(s.fds[layer], p)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return covers
		}
		marked := isOpaque(fd)
		unix.Close(fd)
		if marked {
			return covers
		}
	}
	return nothing
}

func isOpaque(fd int) bool {
	var b [1]byte
	n, err := unix.Fgetxattr(fd, "trusted.overlay.opaque", b[:])
	return err == nil && n == 1 && b[0] == 'y'
}

// beneath opens a directory below another without following symlinks.
func beneath(top int, p string) (int, error) {
	return unix.Openat2(top, p, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// decidedAbove tells whether a layer above i has a say about the path.
func (s *stack) decidedAbove(p string, i int) bool {
	for j := i + 1; j < len(s.layers); j++ {
		if s.look(j, p) != nothing {
			return true
		}
	}
	return false
}

// describedBelow returns the path as the nearest layer below i describes it.
func (s *stack) describedBelow(p string, i int) (inherited, bool) {
	for j := i - 1; j >= 0; j-- {
		fd, err := beneath(s.fds[j], p)
		if err == nil {
			var st unix.Stat_t
			statErr := unix.Fstat(fd, &st)
			marked := isOpaque(fd)
			unix.Close(fd)
			if _, implied := slices.BinarySearch(s.layers[j].Implied, p); !implied && statErr == nil {
				return inherited{p, int(st.Uid), int(st.Gid), st.Mode & 0o7777, [2]unix.Timespec{st.Atim, st.Mtim}}, true
			}
			if marked || s.opaqueParent(j, p) == covers {
				return inherited{}, false
			}
			continue
		}
		if s.look(j, p) == covers {
			return inherited{}, false
		}
	}
	return inherited{}, false
}

// restore sets owner and mode on the mounted root file system.
func restore(ctx context.Context, root string, dirs []inherited) error {
	top, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", root, err)
	}
	defer unix.Close(top)
	for _, d := range dirs {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := d.apply(top); err != nil {
			return fmt.Errorf("restore %.200q: %w", d.path, err)
		}
	}
	return nil
}

func (d inherited) apply(top int) error {
	fd, err := beneath(top, d.path)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Fchown(fd, d.uid, d.gid); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, d.mode); err != nil {
		return err
	}
	return unix.UtimesNanoAt(fd, "", d.times[:], unix.AT_EMPTY_PATH)
}
