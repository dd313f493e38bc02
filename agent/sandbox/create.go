package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/coffer-cc/coffer/agent/container"
	"github.com/coffer-cc/coffer/agent/devices"
	"github.com/coffer-cc/coffer/agent/ocispec"
	"github.com/coffer-cc/coffer/mount/storage"
)

// CreateRequest asks for a container. The spec belongs to the sandbox from then
// on, whatever becomes of the request.
type CreateRequest struct {
	ID       string
	Spec     *specs.Spec
	Storages []storage.Storage
	Devices  []devices.Device
	SharePID bool // join the pod's pid namespace
	// Shared are mounts that other containers of the pod made and this one gets.
	Shared []SharedMount
}

func (r CreateRequest) check() error {
	if err := checkID(r.ID); err != nil {
		return err
	}
	switch {
	case r.Spec == nil:
		return fmt.Errorf("OCI: missing: %w", errdefs.ErrInvalidArgument)
	case r.Spec.Process == nil:
		return fmt.Errorf("OCI.Process: missing: %w", errdefs.ErrInvalidArgument)
	case r.Spec.Root == nil:
		return fmt.Errorf("OCI.Root: missing: %w", errdefs.ErrInvalidArgument)
	case r.Spec.Linux == nil:
		return fmt.Errorf("OCI.Linux: missing: %w", errdefs.ErrInvalidArgument)
	}
	for i, m := range r.Shared {
		if err := m.check(r.Spec); err != nil {
			return fmt.Errorf("shared_mounts[%d]: %w", i, err)
		}
	}
	return nil
}

// Create builds the container and leaves it ready to start. It is all or
// nothing: when it fails, mounts, volumes and cgroups made on the way are gone
// again, and the id may be used anew. An id that is taken is ErrAlreadyExists,
// with no effect on the one that has it. Pulling an image makes this the one
// call that can take minutes; it holds no lock that other containers need.
//
// When ctx ends before Create has, the step at hand is cut short and the rest is
// undone, so that a client which gave up may try again; what the image puller
// fetched until then is its own and not lost. If the undo fails, the sandbox is
// poisoned.
func (s *Sandbox) Create(ctx context.Context, r CreateRequest) error {
	if err := r.check(); err != nil {
		return fmt.Errorf("create container: %w", err)
	}
	if s.deps.Confidential && ocispec.HasHooks(r.Spec) {
		return fmt.Errorf("create container: OCI.Hooks: the host's programs do not run as root of a confidential guest: %w", errdefs.ErrPermissionDenied)
	}
	ctx, e, err := s.reserve(ctx, r.ID)
	if err != nil {
		return fmt.Errorf("create container: %w", err)
	}
	defer close(e.settled)
	defer e.cancel(nil)
	b := build{s: s, e: e, r: r}
	err = b.run(ctx)
	if err == nil {
		err = s.publish(ctx, &b)
	}
	if err == nil {
		slog.InfoContext(ctx, "container created", "id", r.ID, "image", b.image.Reference, "digest", b.image.Digest)
		return nil
	}
	if errors.Is(context.Cause(ctx), errRemoved) {
		err = errRemoved // says more than that a context ended
	}
	err = fmt.Errorf("create container %s: %w", r.ID, err)
	var half *storage.UndoError
	if undoErr := b.undo.run(ctx); undoErr != nil || errors.As(err, &half) {
		s.Poison(errors.Join(err, undoErr))
	}
	s.forget(e)
	return err
}

// publish makes the container visible. A ctx that ended just before counts as
// ended in time: the client does not wait for the answer any more.
func (s *Sandbox) publish(ctx context.Context, b *build) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	b.e.c, b.e.bound, b.e.image, b.e.name, b.e.pci, b.e.phase = b.c, b.bound, b.image, ocispec.Name(b.r.Spec), b.pci, created
	b.e.infra = ocispec.IsSandbox(b.r.Spec)
	s.changedLocked()
	return nil
}

// build is one Create at work: the steps in order, each with its undo.
type build struct {
	s    *Sandbox
	e    *entry
	r    CreateRequest
	undo undo

	volumes []storage.Volume
	bound   bool // the root was bound here and is no storage's
	image   Image
	pulled  *storage.Image // nil for a root file system of another kind
	pci     devices.Addresses
	c       *container.Container
}

func (b *build) run(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		b.makeBundle, b.attachStorages, b.checkSources, b.applyDevices, b.chooseProcess, b.judgeImage, b.injectDevices,
		b.editSpec, b.mountRoot, b.makeContainer, b.shareMounts,
	} {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// makeBundle comes first, so that its undo comes last: storages may be mounted
// below the bundle.
func (b *build) makeBundle(context.Context) error {
	if err := b.s.makeBundle(b.e.id); err != nil {
		return err
	}
	b.undo.push(func(context.Context) error { return b.s.removeBundle(b.e.id) })
	return nil
}

func (b *build) attachStorages(ctx context.Context) error {
	volumes, err := b.s.deps.Storage.Add(ctx, b.e.id, b.r.Storages)
	if err != nil {
		return err
	}
	b.volumes = volumes
	b.undo.push(func(ctx context.Context) error { return b.s.deps.Storage.Release(ctx, b.e.id) })
	return nil
}

func (b *build) applyDevices(ctx context.Context) error {
	if len(b.r.Devices) > 0 && b.s.deps.Devices == nil {
		return fmt.Errorf("devices: this guest finds none: %w", errdefs.ErrNotImplemented)
	}
	pci, err := devices.Apply(ctx, b.r.Spec, b.r.Devices, b.s.deps.Devices)
	b.pci = pci
	return err
}

// injectDevices comes when the process is settled, whose environment may ask
// for devices and name them.
func (b *build) injectDevices(ctx context.Context) error {
	b.r.Spec.Process.Env = b.pci.Translate(b.r.Spec.Process.Env)
	return b.s.deps.CDI.Inject(ctx, b.r.Spec)
}

func (b *build) editSpec(context.Context) error {
	ns, err := b.s.namespacesFor(b.e, b.r.SharePID)
	if err != nil {
		return err
	}
	ocispec.Namespaces(b.r.Spec, ns)
	ocispec.Lenient(b.r.Spec)
	return nil
}

func (b *build) mountRoot(context.Context) error {
	path, bound, err := b.s.mountRoot(b.e.id, b.r.Spec.Root, b.volumes)
	if err != nil {
		return err
	}
	if b.bound = bound; bound {
		b.undo.push(func(context.Context) error { return b.s.unmountRoot(b.e.id) })
	}
	ocispec.SetRoot(b.r.Spec, path)
	return b.s.writeConfig(b.e.id, b.r.Spec)
}

func (b *build) makeContainer(ctx context.Context) error {
	o := b.s.deps.Options
	o.GuestHooks = b.s.guestHooks()
	c, err := container.New(ctx, b.s.deps.Containers, b.e.id, b.r.Spec, o)
	if err != nil {
		return err
	}
	b.c = c
	b.undo.push(c.Destroy)
	b.undo.push(func(context.Context) error { return b.s.unsharePID(b.e) })
	return b.s.sharePID(b.e, c.InitPid())
}
