package sandbox

import (
	"context"
	"fmt"
	"path"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/coffer-cc/coffer/agent/container"
	"github.com/coffer-cc/coffer/agent/ocispec"
	"github.com/coffer-cc/coffer/mount"
)

// sharedMountTime is how long a container may take to make the mount that
// another one waits for.
const sharedMountTime = 10 * time.Second

var errNotMounted = fmt.Errorf("nothing was mounted there in %v: %w", sharedMountTime, errdefs.ErrUnavailable)

// SharedMount is a mount that a program in one container made, at Source, and
// that another container gets at Target. The paths are those that the containers
// see. From and To are the containers' names in Kubernetes.
type SharedMount struct {
	From, Source string
	To, Target   string
}

func (m SharedMount) check(spec *specs.Spec) error {
	for _, p := range []struct{ field, path string }{{"src_path", m.Source}, {"dst_path", m.Target}} {
		if !path.IsAbs(p.path) || path.Clean(p.path) != p.path || p.path == "/" {
			return fmt.Errorf("%s: no clean absolute path below the root: %w", p.field, errdefs.ErrInvalidArgument)
		}
	}
	if m.From == "" {
		return fmt.Errorf("src_ctr: missing: %w", errdefs.ErrInvalidArgument)
	}
	if name := ocispec.Name(spec); name != "" && m.To != "" && m.To != name {
		return fmt.Errorf("dst_ctr: is not this container: %w", errdefs.ErrInvalidArgument)
	}
	return nil
}

// shareMounts needs the container's mount namespace, so it comes when init is
// held. A mount that does not come is an error: a program that found its
// directory empty would write to the wrong place.
func (b *build) shareMounts(ctx context.Context) error {
	for i, m := range b.r.Shared {
		if err := b.shareMount(ctx, m); err != nil {
			return fmt.Errorf("shared_mounts[%d]: %w", i, err)
		}
	}
	return nil
}

func (b *build) shareMount(ctx context.Context, m SharedMount) error {
	from, err := b.s.named(m.From)
	if err != nil {
		return err
	}
	wait, cancel := context.WithTimeoutCause(ctx, sharedMountTime, errNotMounted)
	defer cancel()
	if err := mount.WaitMounted(wait, from.InitPid(), m.Source); err != nil {
		return err
	}
	if from.State() == container.StateStopped {
		return fmt.Errorf("src_ctr: container has stopped: %w", errdefs.ErrFailedPrecondition)
	}
	return mount.Clone(from.InitPid(), m.Source, b.c.InitPid(), m.Target)
}

// named finds a container by its name in Kubernetes. Of several, as when one
// was restarted, it is the one that has not stopped.
func (s *Sandbox) named(name string) (*container.Container, error) {
	s.mu.Lock()
	var candidates []*container.Container
	for _, e := range s.entries {
		if e.phase == created && e.name == name {
			candidates = append(candidates, e.c)
		}
	}
	s.mu.Unlock()
	for _, c := range candidates {
		if c.State() != container.StateStopped {
			return c, nil
		}
	}
	return nil, fmt.Errorf("src_ctr: no container %.128q is running: %w", name, errdefs.ErrFailedPrecondition)
}
