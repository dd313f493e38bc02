package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/mount"
	"github.com/coffer-cc/coffer/mount/watch"
)

// watchable mirrors a small tree of the host's share into the guest's memory,
// so that containers notice changes; see mount/watch. A tree that is too large
// for that is bound as it is. All mirrors lie in a tmpfs on one of two
// directories that the host makes in the share.
type watchable struct {
	ground
	interval time.Duration

	mu      sync.Mutex     // guards mirrors, also while the tmpfs comes and goes
	mirrors map[string]int // how many there are in each directory
}

// watchableDirs are below the root.
var watchableDirs = []string{"shared/containers/watchable", "shared/containers/passthrough/watchable"}

// watchableOptions bound what all mirrors of a pod may take.
const watchableOptions = "mode=0755,size=64m,nr_inodes=8192"

// Attach implements Handler.
func (h *watchable) Attach(ctx context.Context, _ string, s Storage) (Volume, error) {
	if s.FSGroup != nil || len(s.DriverOptions) > 0 {
		return nil, fmt.Errorf("driver %s takes no group and no driver options: %w", s.Driver, errdefs.ErrInvalidArgument)
	}
	target, err := h.place(s)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(watchableDirs, filepath.Dir(target.Rel())) {
		return nil, fmt.Errorf("mount point is not directly in one of %q: %w", watchableDirs, errdefs.ErrPermissionDenied)
	}
	source, err := mount.At(filepath.Join(h.root, "shared"), s.Source)
	if err != nil {
		return nil, fmt.Errorf("source of driver %s: %w", s.Driver, err)
	}
	dir, err := mount.At(h.root, filepath.Dir(target.String()))
	if err != nil {
		return nil, err
	}
	if err := h.enter(dir); err != nil {
		return nil, err
	}
	v := &mirror{handler: h, dir: dir, target: target}
	if err := h.start(ctx, v, source); err != nil {
		return nil, undone(err, v.Detach(context.WithoutCancel(ctx)))
	}
	return v, nil
}

// enter makes sure that the tmpfs is there for one more mirror.
func (h *watchable) enter(dir mount.Place) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mirrors[dir.Rel()] == 0 {
		f, err := dir.MakeDir(0o755)
		if err != nil {
			return err
		}
		f.Close()
		o := mount.Options{Flags: unix.MS_NOSUID | unix.MS_NODEV, Data: watchableOptions}
		if err := dir.Mount(mount.Request{Source: "watchable", FSType: "tmpfs", Options: o}); err != nil {
			return err
		}
	}
	h.mirrors[dir.Rel()]++
	return nil
}

// leave takes the tmpfs away after the last mirror.
func (h *watchable) leave(dir mount.Place) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mirrors[dir.Rel()] == 1 {
		if err := dir.Unmount(); err != nil {
			return err
		}
	}
	h.mirrors[dir.Rel()]--
	return nil
}

// start fills the mirror for the first time and keeps it up to date, or binds
// the source.
func (h *watchable) start(ctx context.Context, v *mirror, source mount.Place) error {
	from, err := source.Open()
	if err != nil {
		return err
	}
	defer from.Close()
	if err := createLike(from, v.target); err != nil {
		return err
	}
	m := &watch.Mirror{Source: source, Target: v.target}
	err = firstSync(m)
	if errors.Is(err, watch.ErrTooLarge) {
		slog.InfoContext(ctx, "tree is bound instead of watched", "source", source.String(), "error", err)
		err = v.target.Mount(mount.Request{Source: mount.FDPath(from), Options: mount.Options{Flags: unix.MS_BIND | unix.MS_NODEV | unix.MS_NOSUID}})
		v.bound = err == nil
		return err
	}
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	v.stop, v.ended = stop, make(chan struct{})
	go func() {
		defer close(v.ended)
		tick := time.NewTicker(h.interval)
		defer tick.Stop()
		m.Run(running, tick.C)
	}()
	return nil
}

// firstTries is how often a tree may change while it is copied for the first
// time.
const firstTries = 3

func firstSync(m *watch.Mirror) (err error) {
	for range firstTries {
		if err = m.Sync(); err == nil || errors.Is(err, watch.ErrTooLarge) {
			return err
		}
	}
	return err
}

// createLike makes a directory or an empty file at p, whichever f has open.
func createLike(f *os.File, p mount.Place) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	var made *os.File
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		made, err = p.MakeDir(0o755)
	case unix.S_IFREG:
		made, err = p.MakeFile()
	default:
		err = fmt.Errorf("source %q is neither directory nor file: %w", f.Name(), errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return err
	}
	return made.Close()
}

// mirror is the Volume of a watched tree.
type mirror struct {
	handler     *watchable
	dir, target mount.Place
	stop        func()        // nil when nothing runs
	ended       chan struct{} // closed when the watch is over
	bound       bool          // the source itself is mounted on the target
}

// Path implements Volume.
func (v *mirror) Path() string { return v.target.String() }

// Detach implements Volume.
func (v *mirror) Detach(context.Context) error {
	if v.stop != nil {
		v.stop()
		<-v.ended
	}
	if v.bound {
		if err := v.target.Unmount(); err != nil {
			return err
		}
		v.bound = false
	}
	if err := v.target.RemoveAll(); err != nil {
		return err
	}
	return v.handler.leave(v.dir)
}
