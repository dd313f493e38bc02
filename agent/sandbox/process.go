package sandbox

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/coffer-cc/coffer/agent/ocispec"
	"github.com/coffer-cc/coffer/mount/storage"
)

// chooseProcess settles what the container runs. As a rule that is what the
// spec says. Two exceptions, both only with a root file system that the guest
// provided: the pod's own container runs the guest's pause bundle, whatever the
// host asked for, and a process without arguments gets those of the verified
// image.
func (b *build) chooseProcess(context.Context) error {
	root, err := rootfs(b.volumes)
	if err != nil {
		return err
	}
	if root == nil {
		return requireArgs(b.r.Spec)
	}
	if pause, ok := root.Pause(); ok {
		return b.runPause(pause)
	}
	if ocispec.IsSandbox(b.r.Spec) {
		return fmt.Errorf("annotations say sandbox, but its storage pulls an image: %w", errdefs.ErrInvalidArgument)
	}
	img, ok := root.Image()
	if !ok {
		return fmt.Errorf("root file system is neither an image nor the pause bundle: %w", errdefs.ErrInvalidArgument)
	}
	b.pulled = &img
	b.image = Image{Reference: img.Reference, Digest: img.ManifestDigest}
	if ocispec.ApplyImage(b.r.Spec, img.Config.Config) {
		if err := resolveUser(b.r.Spec.Process, img.Rootfs); err != nil {
			return err
		}
	}
	return requireArgs(b.r.Spec)
}

// ImageRules decides whether a container may be made of the image that was
// pulled for it. An error refuses.
type ImageRules interface {
	Judge(ctx context.Context, f ImageFacts) error
}

// ImageFacts are what the guest itself knows about an image and what is made of
// it: all of it was verified, nothing is the host's word alone.
type ImageFacts struct {
	ContainerID string
	Image       storage.Image
	Process     *specs.Process // as it will run; not to be changed
}

// judgeImage asks about the image when all is known about it, and before
// anything of it can run. A refusal lets go of the image as any failure does.
func (b *build) judgeImage(ctx context.Context) error {
	if b.pulled == nil || b.s.deps.Images == nil {
		return nil
	}
	return b.s.deps.Images.Judge(ctx, ImageFacts{ContainerID: b.e.id, Image: *b.pulled, Process: b.r.Spec.Process})
}

// resolveUser turns the user that the image names into numbers.
func resolveUser(p *specs.Process, rootfs string) error {
	if p.User.Username == "" {
		return nil
	}
	u, err := lookUp(p.User.Username, rootfs)
	if err != nil {
		return err
	}
	u.Umask, u.Username = p.User.Umask, p.User.Username
	p.User = u
	return nil
}

// runPause needs the spec to say the same as the storage: policy rules look at
// the annotations of the spec, and must not take a pause container for another.
func (b *build) runPause(pause *specs.Process) error {
	if !ocispec.IsSandbox(b.r.Spec) {
		return fmt.Errorf("storage says sandbox, but the annotations do not: %w", errdefs.ErrInvalidArgument)
	}
	ocispec.UsePause(b.r.Spec, pause)
	return requireArgs(b.r.Spec)
}

func requireArgs(spec *specs.Spec) error {
	if len(spec.Process.Args) == 0 {
		return fmt.Errorf("OCI.Process.Args: empty: %w", errdefs.ErrInvalidArgument)
	}
	return nil
}

// rootfs returns the volume that is a root file system made by the guest, or nil.
func rootfs(volumes []storage.Volume) (storage.Rootfs, error) {
	var found storage.Rootfs
	for _, v := range volumes {
		r, ok := v.(storage.Rootfs)
		if !ok {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("storages: two root file systems: %w", errdefs.ErrInvalidArgument)
		}
		found = r
	}
	return found, nil
}
