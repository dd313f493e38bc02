package storage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/mount"
)

// imageGuestPull makes the root file system of a container from an image that
// is pulled and verified inside the guest. The source is the image reference.
// The one driver option holds the container's annotations as JSON; they only
// decide whether this is the sandbox's own container, which runs the pause
// bundle of the guest image and pulls nothing.
//
// The mount point is always the owner's rootfs, and nothing may be mounted
// there before or inside it after: see private.
type imageGuestPull struct {
	ground
	images Images
	pause  string // directory of the pause bundle
}

// private is a Handler whose mounts belong to one owner each.
type private interface {
	// only returns the one mount point that owner may use.
	only(owner string) (string, error)
}

func (h imageGuestPull) only(owner string) (string, error) {
	if owner == "" || strings.ContainsAny(owner, "/\x00") || strings.HasPrefix(owner, ".") {
		return "", fmt.Errorf("owner %.80q of an image is no container: %w", owner, errdefs.ErrInvalidArgument)
	}
	return filepath.Join(h.root, owner, "rootfs"), nil
}

// Attach implements Handler.
func (h imageGuestPull) Attach(ctx context.Context, owner string, s Storage) (Volume, error) {
	if err := oneOf(s, "overlay", ""); err != nil {
		return nil, err
	}
	if len(s.Options) > 0 || s.FSGroup != nil || s.Shared {
		return nil, fmt.Errorf("driver %s takes neither options nor a group, and is not shared: %w", s.Driver, errdefs.ErrInvalidArgument)
	}
	sandbox, err := isSandbox(s.DriverOptions)
	if err != nil {
		return nil, err
	}
	p, err := h.place(s)
	if err != nil {
		return nil, err
	}
	p = p.OnRootFS()
	if on, err := p.Mounted(); err != nil {
		return nil, err
	} else if on {
		return nil, fmt.Errorf("something is mounted on %q already: %w", p, errdefs.ErrFailedPrecondition)
	}
	if sandbox {
		return h.attachPause(ctx, p, s)
	}
	return h.attachImage(ctx, owner, p, s)
}

func (h imageGuestPull) attachImage(ctx context.Context, owner string, p mount.Place, s Storage) (Volume, error) {
	if h.images == nil {
		return nil, fmt.Errorf("no way to pull images: %w", errdefs.ErrNotImplemented)
	}
	if s.Source == "" || len(s.Source) > 1024 {
		return nil, fmt.Errorf("image reference of %d bytes: %w", len(s.Source), errdefs.ErrInvalidArgument)
	}
	img, err := h.images.Pull(ctx, s.Source, owner)
	if err != nil {
		return nil, fmt.Errorf("pull %q: %w", s.Source, err)
	}
	m, err := attach(ctx, p, s, func() error {
		return p.Mount(mount.Request{Source: img.Rootfs, Options: mount.Options{Flags: unix.MS_BIND}})
	})
	if err != nil {
		return nil, undone(err, h.images.Release(context.WithoutCancel(ctx), owner))
	}
	return pulled{m, img, h.images, owner}, nil
}

// pulled is the Rootfs of an image.
type pulled struct {
	mounted
	image  Image
	images Images
	owner  string
}

// Image implements Rootfs.
func (v pulled) Image() (Image, bool) { return v.image, true }

// Pause implements Rootfs.
func (v pulled) Pause() (*specs.Process, bool) { return nil, false }

// Detach implements Volume. The container is dead by now, but the kernel may
// still be taking it apart; its root file system then goes lazily. Nothing of
// it is kept, so there is no data to lose.
func (v pulled) Detach(ctx context.Context) error {
	return errors.Join(detachRoot(ctx, v.mounted), v.images.Release(ctx, v.owner))
}

// detachRoot unmounts the root file system of a container that is dead.
func detachRoot(ctx context.Context, m mounted) error {
	err := m.Detach(ctx)
	if errors.Is(err, unix.EBUSY) {
		slog.WarnContext(ctx, "root file system is busy, unmounting lazily", "path", m.Path())
		err = m.place.UnmountLazy()
		m.cleanUp(ctx)
	}
	return err
}

// maxMetadata bounds the annotations of a container. Kubernetes allows 256 KiB
// for a pod.
const maxMetadata = 512 << 10

// isSandbox reads the driver option and tells whether it belongs to the
// sandbox's own container. Markers that disagree are an error: whoever sends
// them wants one check to see this container and the next one that.
func isSandbox(driverOptions []string) (bool, error) {
	const key = "image_guest_pull="
	if len(driverOptions) != 1 || !strings.HasPrefix(driverOptions[0], key) || len(driverOptions[0]) > maxMetadata {
		return false, fmt.Errorf("driver option %sJSON of at most %d bytes is needed, once: %w", key, maxMetadata, errdefs.ErrInvalidArgument)
	}
	var volume struct {
		Metadata map[string]string `json:"metadata"`
	}
	if err := json.Unmarshal([]byte(driverOptions[0][len(key):]), &volume); err != nil || volume.Metadata == nil {
		return false, fmt.Errorf("driver option %s has no JSON object with metadata: %w", key, errdefs.ErrInvalidArgument)
	}
	cri, hasCRI := volume.Metadata["io.kubernetes.cri.container-type"]
	crio, hasCRIO := volume.Metadata["io.kubernetes.cri-o.ContainerType"]
	if hasCRI && hasCRIO && cri != crio {
		return false, fmt.Errorf("annotations name two container types: %w", errdefs.ErrInvalidArgument)
	}
	return cri == "sandbox" || crio == "sandbox", nil
}
