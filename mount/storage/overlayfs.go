package storage

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/mount"
)

// overlayFS mounts directories on top of each other, most often layers that
// earlier storages of the same request mounted. Its directories lie in the
// owner's own part of the root or in the parts that storages share: a container
// cannot make another one's root file system its layer.
type overlayFS struct{ ground }

const (
	// overlayRW asks for an upper directory of the container's own.
	overlayRW = "io.katacontainers.fs-opt.overlay-rw"
	// createDir is a driver option with a directory to make before the mount.
	createDir = "io.katacontainers.volume.overlayfs.create_directory="
)

// sharedParts are the directories below the root that belong to the pod.
var sharedParts = []string{"shared", "sandbox", "virtual-volumes"}

// overlayWords are the options of overlayfs that a request may set. Those that
// name further directories are missing on purpose.
var overlayWords = []string{"index", "xino", "redirect_dir", "metacopy", "nfs_export", "uuid", "userxattr", "volatile"}

// Attach implements Handler.
func (h overlayFS) Attach(ctx context.Context, owner string, s Storage) (Volume, error) {
	rw := slices.Contains(mount.SplitOptions(s.Options), overlayRW)
	if !rw {
		if err := oneOf(s, "overlay"); err != nil {
			return nil, err
		}
	}
	plan, err := h.plan(owner, s)
	if err != nil {
		return nil, err
	}
	if rw {
		if err := plan.ownUpper(h, owner); err != nil {
			return nil, err
		}
	}
	p, err := h.place(s)
	if err != nil {
		return nil, err
	}
	if err := plan.make(); err != nil {
		return nil, err
	}
	o, release, err := plan.open()
	if err != nil {
		return nil, err
	}
	defer release()
	return attachVolume(attach(ctx, p, s, func() error { return p.MountOverlay(o) }))
}

// overlayPlan is a checked request.
type overlayPlan struct {
	create      []mount.Place
	lower       []mount.Place
	upper, work *mount.Place
	options     mount.Options
}

// plan sorts the options of s.
func (h overlayFS) plan(owner string, s Storage) (*overlayPlan, error) {
	o, err := options(s, 0)
	if err != nil {
		return nil, err
	}
	plan := &overlayPlan{options: mount.Options{Flags: o.Flags, Propagation: o.Propagation}}
	var rest []string
	for _, word := range mount.SplitOptions([]string{o.Data}) {
		key, value, _ := strings.Cut(word, "=")
		switch {
		case key == "lowerdir":
			plan.lower, err = h.dirs(owner, strings.Split(value, ":")...)
		case key == "upperdir":
			plan.upper, err = h.dir(owner, value)
		case key == "workdir":
			plan.work, err = h.dir(owner, value)
		case slices.Contains(overlayWords, key):
			rest = append(rest, word)
		default:
			err = fmt.Errorf("overlay option %.80q is not allowed: %w", word, errdefs.ErrInvalidArgument)
		}
		if err != nil {
			return nil, err
		}
	}
	if len(plan.lower) == 0 {
		return nil, fmt.Errorf("overlay without lowerdir: %w", errdefs.ErrInvalidArgument)
	}
	plan.options.Data = strings.Join(rest, ",")
	for _, d := range s.DriverOptions {
		path, ok := strings.CutPrefix(d, createDir)
		if !ok {
			return nil, fmt.Errorf("unknown driver option %.80q for driver %s: %w", d, s.Driver, errdefs.ErrInvalidArgument)
		}
		dir, err := h.dir(owner, path)
		if err != nil {
			return nil, err
		}
		plan.create = append(plan.create, *dir)
	}
	return plan, nil
}

// dir checks a directory that the request names.
func (h overlayFS) dir(owner, path string) (*mount.Place, error) {
	p, err := mount.At(h.root, path)
	if err != nil {
		return nil, fmt.Errorf("directory of an overlay: %w", err)
	}
	part, _, _ := strings.Cut(p.Rel(), "/")
	if part != owner && !slices.Contains(sharedParts, part) {
		return nil, fmt.Errorf("directory %.200q of an overlay belongs to something else: %w", path, errdefs.ErrPermissionDenied)
	}
	return &p, nil
}

func (h overlayFS) dirs(owner string, paths ...string) ([]mount.Place, error) {
	var out []mount.Place
	for _, path := range paths {
		p, err := h.dir(owner, path)
		if err != nil {
			return nil, err
		}
		out = append(out, *p)
	}
	return out, nil
}

// ownUpper makes the overlay writable in the owner's part of the root.
func (p *overlayPlan) ownUpper(h overlayFS, owner string) error {
	if p.upper != nil || p.work != nil {
		return fmt.Errorf("overlay option %s with an upper directory: %w", overlayRW, errdefs.ErrInvalidArgument)
	}
	dirs, err := h.dirs(owner, filepath.Join(h.root, owner, "upper"), filepath.Join(h.root, owner, "work"))
	if err != nil {
		return err
	}
	p.upper, p.work = &dirs[0], &dirs[1]
	p.create = append(p.create, dirs...)
	return nil
}

func (p *overlayPlan) make() error {
	for _, dir := range p.create {
		f, err := dir.MakeDir(0o755)
		if err != nil {
			return err
		}
		f.Close()
	}
	return nil
}

// open opens every directory and names it by descriptor, so that the mount
// gets what was checked, and paths of any length fit. The descriptors are not
// needed once the overlay stands.
func (p *overlayPlan) open() (o mount.Overlay, release func(), err error) {
	var held []*os.File
	release = func() {
		for _, f := range held {
			f.Close()
		}
	}
	name := func(place *mount.Place) string {
		if err != nil || place == nil {
			return ""
		}
		var f *os.File
		if f, err = openDir(*place); err != nil {
			return ""
		}
		held = append(held, f)
		return mount.FDPath(f)
	}
	o.Options = p.options
	for i := range p.lower {
		o.Lower = append(o.Lower, name(&p.lower[i]))
	}
	o.Upper, o.Work = name(p.upper), name(p.work)
	if err != nil {
		release()
		return mount.Overlay{}, nil, err
	}
	return o, release, nil
}

func openDir(p mount.Place) (*os.File, error) {
	f, err := p.Open()
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		f.Close()
		return nil, fmt.Errorf("layer %q is no directory: %w", p, errdefs.ErrInvalidArgument)
	}
	return f, nil
}
