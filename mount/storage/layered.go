package storage

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/mount"
	"github.com/coffer-cc/coffer/mount/device"
)

// layered mounts a root file system of erofs layers, each on a disk of its own
// or in a partition, with dm-verity where it is asked for, and an overlay over
// them. The Manager gathers the storages of the layers.
//
//	ROOT/OWNER/multi-layer/
//	    lower-0, lower-1, …   the layers, topmost first
//	    upper/{upper,work}    an ext4 of the host's, or a directory in memory
//
// No other storage is mounted in there, nor inside the root file system.
type layered struct {
	ground
	blk, scsi block // find the disks
	protect   protection
}

// layersDir is where the layers of a root file system lie.
const layersDir = "multi-layer"

// Attach implements Handler.
func (h layered) Attach(ctx context.Context, owner string, s Storage) (Volume, error) {
	l, err := parseLayers(s.layers)
	if err != nil {
		return nil, err
	}
	if err := h.protect.allowLayers(l); err != nil {
		return nil, err
	}
	target, err := h.place(s)
	if err != nil {
		return nil, err
	}
	if h.protect.required {
		target = target.OnRootFS() // elsewhere the host could move it away
	}
	if owner == "" || strings.ContainsAny(owner, "/\x00") || strings.HasPrefix(owner, ".") {
		return nil, fmt.Errorf("owner %.80q of layers is no container: %w", owner, errdefs.ErrInvalidArgument)
	}
	v := &layeredVolume{path: target.String()}
	if err := h.build(ctx, v, filepath.Join(h.root, owner, layersDir), target, l); err != nil {
		return nil, undone(err, v.Detach(context.WithoutCancel(ctx)))
	}
	return v, nil
}

// build mounts from the bottom up and notes in v how to take each step back.
func (h layered) build(ctx context.Context, v *layeredVolume, base string, target mount.Place, l *layers) error {
	at := func(name string) (mount.Place, error) {
		p, err := mount.At(h.root, filepath.Join(base, name))
		return p.OnRootFS(), err
	}
	dir, err := at("")
	if err != nil {
		return err
	}
	if on, err := target.Mounted(); err != nil {
		return err
	} else if on {
		return fmt.Errorf("something is mounted on %q already: %w", target, errdefs.ErrFailedPrecondition)
	}
	v.push(func(context.Context) error { return dir.RemoveAll() })
	upper, err := at("upper")
	if err != nil {
		return err
	}
	if l.upper == nil {
		f, err := upper.MakeDir(0o755)
		if err != nil {
			return err
		}
		f.Close()
	} else if err := h.layer(ctx, v, upper, *l.upper); err != nil {
		return err
	}
	plan := overlayPlan{}
	for i, one := range l.lower {
		p, err := at("lower-" + strconv.Itoa(i))
		if err != nil {
			return err
		}
		if err := h.layer(ctx, v, p, one); err != nil {
			return err
		}
		plan.lower = append(plan.lower, p)
	}
	if err := plan.upperIn(upper, l.mkdir, plan.lower[0].String()); err != nil {
		return err
	}
	return h.overlay(ctx, v, target, plan)
}

// upperIn makes the overlay writable inside a mounted upper layer.
func (p *overlayPlan) upperIn(upper mount.Place, mkdir []string, lower string) error {
	for _, spec := range append(mkdir[:len(mkdir):len(mkdir)], "upper", "work") {
		dir, err := mkdirPlace(spec, upper.String(), lower)
		if err != nil {
			return err
		}
		p.create = append(p.create, dir)
	}
	n := len(p.create)
	p.upper, p.work = &p.create[n-2], &p.create[n-1]
	return nil
}

func (h layered) overlay(ctx context.Context, v *layeredVolume, target mount.Place, plan overlayPlan) error {
	if err := plan.make(); err != nil {
		return err
	}
	o, release, err := plan.open()
	if err != nil {
		return err
	}
	defer release()
	m, err := attach(ctx, target, Storage{}, func() error { return target.MountOverlay(o) })
	if err != nil {
		return err
	}
	v.push(func(ctx context.Context) error { return detachRoot(ctx, m) })
	return nil
}

// layer mounts one layer. What is below an overlay is only reached through it,
// and the overlay's own flags count there.
func (h layered) layer(ctx context.Context, v *layeredVolume, p mount.Place, l layer) error {
	fail := func(err error) error { return fmt.Errorf("layer from %q: %w", clip(l.Source), err) }
	o, err := options(l.Storage, unix.MS_NODEV|unix.MS_NOSUID)
	if err != nil {
		return fail(err)
	}
	if !l.upper {
		o.Flags |= unix.MS_RDONLY
	}
	node, err := h.node(ctx, l)
	if err != nil {
		return fail(err)
	}
	if l.verity != nil {
		d, err := h.protect.verify(ctx, node, *l.verity)
		if err != nil {
			return fail(err)
		}
		v.push(func(context.Context) error { return d.Remove() })
		node = d.Node
	}
	m, err := attach(ctx, p, Storage{}, func() error {
		return p.Mount(mount.Request{Source: node, FSType: l.FSType, Options: o})
	})
	if err != nil {
		return fail(err)
	}
	v.push(m.Detach)
	return nil
}

// node finds the disk of a layer, and its partition.
func (h layered) node(ctx context.Context, l layer) (string, error) {
	finder := h.blk
	if l.Driver == "scsi" {
		finder = h.scsi
	}
	disk, err := finder.find(ctx, l.Source)
	if err != nil || l.part == 0 {
		return disk, err
	}
	m, err := device.NewPartition(disk, l.part)
	if err != nil {
		return "", err
	}
	return finder.devices.Wait(ctx, m)
}

// layeredVolume takes its steps back newest first. A step that fails stays, so
// that Detach can be tried again.
type layeredVolume struct {
	path  string
	steps []func(context.Context) error
}

func (v *layeredVolume) push(undo func(context.Context) error) { v.steps = append(v.steps, undo) }

// Path implements Volume.
func (v *layeredVolume) Path() string { return v.path }

// Detach implements Volume.
func (v *layeredVolume) Detach(ctx context.Context) error {
	for n := len(v.steps); n > 0; n-- {
		if err := v.steps[n-1](ctx); err != nil {
			return err
		}
		v.steps = v.steps[:n-1]
	}
	return nil
}
