package imagepull

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/mount"
	"github.com/coffer-cc/coffer/mount/storage"
)

// rootfs is the root file system of one owner: an overlay of the image's layers
// with a writable directory that lives and dies with it.
//
//	containers/<name>/rootfs   the mount
//	containers/<name>/upper    what the container writes
//	containers/<name>/work     overlayfs's own
type rootfs struct {
	mu    sync.Mutex // held while mounting and unmounting
	gone  bool       // no longer in the table; look again
	image storage.Image
}

// mount returns the owner's root file system, made if it has none.
func (p *Puller) mount(ctx context.Context, img *pulled, owner string) (storage.Image, error) {
	r := p.claim(owner)
	defer r.mu.Unlock()
	if r.image.Rootfs != "" {
		if r.image.ManifestDigest != img.digest {
			return storage.Image{}, fmt.Errorf("mount image for %.80q, which has another: %w", owner, errdefs.ErrAlreadyExists)
		}
		return r.image, nil
	}
	for _, k := range img.keys {
		if err := p.store.Pin(k, pinOf(owner)); err != nil {
			return storage.Image{}, errors.Join(err, p.discard(ctx, r, owner))
		}
	}
	dir := p.ownerDir(owner)
	r.image = storage.Image{Rootfs: filepath.Join(dir, "rootfs"), Reference: img.reference,
		ManifestDigest: img.digest, IndexDigest: img.index, Config: img.config}
	if err := overlay(ctx, img, dir); err != nil {
		return storage.Image{}, errors.Join(fmt.Errorf("mount %s: %w", img.reference, err), p.discard(ctx, r, owner))
	}
	return r.image, nil
}

func pinOf(owner string) string { return "owner " + owner }

// ownerDir names the directory of an owner, which may be any text.
func (p *Puller) ownerDir(owner string) string {
	sum := sha256.Sum256([]byte(owner))
	return filepath.Join(p.config.WorkDir, "containers", hex.EncodeToString(sum[:8]))
}

// claim returns the owner's entry, locked.
func (p *Puller) claim(owner string) *rootfs {
	for {
		p.mu.Lock()
		r := p.rootfs[owner]
		if r == nil {
			r = &rootfs{}
			p.rootfs[owner] = r
		}
		p.mu.Unlock()
		r.mu.Lock()
		if !r.gone {
			return r
		}
		r.mu.Unlock()
	}
}

// overlay mounts the layers, the topmost first. A layer that occurs twice
// counts where it is on top: below it would be covered by itself.
func overlay(ctx context.Context, img *pulled, dir string) error {
	for _, d := range []string{dir, filepath.Join(dir, "upper"), filepath.Join(dir, "work"), filepath.Join(dir, "rootfs")} {
		mode := os.FileMode(0o755)
		if d == dir {
			mode = 0o700 // whoever could enter would see the container's files
		}
		if err := os.Mkdir(d, mode); err != nil {
			return err
		}
	}
	o := mount.Overlay{Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work"),
		Options: mount.Options{Data: "index=off,metacopy=off"}}
	for _, l := range slices.Backward(img.layers) {
		if !slices.Contains(o.Lower, l.Dir) {
			o.Lower = append(o.Lower, l.Dir)
		}
	}
	target := filepath.Join(dir, "rootfs")
	if err := o.Mount(target); err != nil {
		return err
	}
	return restore(ctx, target, img.inherited)
}

// Release unmounts and removes what was made for the owner. Layers stay for
// others. It is idempotent.
func (p *Puller) Release(ctx context.Context, owner string) error {
	p.mu.Lock()
	known := p.rootfs[owner] != nil
	p.mu.Unlock()
	if !known {
		return nil
	}
	r := p.claim(owner)
	defer r.mu.Unlock()
	if err := p.discard(ctx, r, owner); err != nil {
		return fmt.Errorf("release image of %.80q: %w", owner, err)
	}
	return nil
}

// discard takes r apart; the caller holds its lock. What fails leaves the entry
// in place, so that Release can be called again.
func (p *Puller) discard(ctx context.Context, r *rootfs, owner string) error {
	dir := p.ownerDir(owner)
	if err := p.unmount(ctx, filepath.Join(dir, "rootfs")); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	p.store.Release(pinOf(owner))
	r.image, r.gone = storage.Image{}, true
	p.mu.Lock()
	delete(p.rootfs, owner)
	p.mu.Unlock()
	return nil
}

// unmount falls back to a lazy unmount while the kernel still takes the
// container apart. Nothing of the file system is kept, so nothing can be lost.
func (p *Puller) unmount(ctx context.Context, target string) error {
	err := mount.Unmount(target)
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
		return nil // it never was mounted
	case errors.Is(err, unix.EBUSY):
		slog.WarnContext(ctx, "image is busy, unmounting lazily", "path", target)
		return mount.UnmountLazy(target)
	}
	return err
}
