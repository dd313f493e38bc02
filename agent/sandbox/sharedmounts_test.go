package sandbox

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

const nameAnnotation = "io.kubernetes.cri.container-name"

// maker is a container that mounts a file system of its own when it reads a
// line, and stays.
func (p *pod) maker(t *testing.T) CreateRequest {
	r := p.request(t, "maker", "read go; mkdir /dev/made; mount -t tmpfs none /dev/made; echo hello >/dev/made/file; mkdir /dev/made/sub; mount -t tmpfs none /dev/made/sub; echo deep >/dev/made/sub/file; echo made; exec sleep 1000")
	r.Spec.Mounts = r.Spec.Mounts[:2]
	r.Spec.Annotations = map[string]string{nameAnnotation: "maker"}
	caps := []string{"CAP_SYS_ADMIN"}
	r.Spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	return r
}

func (p *pod) user(t *testing.T, id string, shared SharedMount) CreateRequest {
	r := p.request(t, id, "read x </dev/got/file && echo $x; read x </dev/got/sub/file && echo $x")
	r.Spec.Mounts = r.Spec.Mounts[:2]
	r.Spec.Annotations = map[string]string{nameAnnotation: "user"}
	r.Shared = []SharedMount{shared}
	return r
}

func TestRealSharedMount(t *testing.T) {
	p := newPod(t)
	before := len(mounts(t, "/"))
	p.start(t, p.request(t, "pod1", "exec sleep 1000").withoutShm())
	made := p.start(t, p.maker(t))
	shared := SharedMount{From: "maker", Source: "/dev/made", To: "user", Target: "/dev/got"}
	// The mount comes while the other container's create waits for it.
	created := make(chan error, 1)
	r := p.user(t, "user", shared)
	go func() { created <- p.Create(context.WithoutCancel(t.Context()), r) }()
	if _, err := made.WriteStdin(t.Context(), []byte("go\n")); err != nil {
		t.Fatal(err)
	}
	if err := <-created; err != nil {
		t.Fatal(err)
	}
	c, err := p.Container("user")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	init, err := p.Process("user", "")
	if err != nil {
		t.Fatal(err)
	}
	if got := output(t, init); got != "hello\ndeep\n" {
		t.Errorf("the other container reads %q", got)
	}
	if err := p.Destroy(t.Context()); err != nil {
		t.Error(err)
	}
	if after := len(mounts(t, "/")); after != before {
		t.Errorf("%d mounts, %d before", after, before)
	}
}

// A mount that cannot be had fails the create, and leaves nothing of it.
func TestRealSharedMountRefused(t *testing.T) {
	p := newPod(t)
	p.start(t, p.request(t, "pod1", "exec sleep 1000").withoutShm())
	p.start(t, p.maker(t))
	good := SharedMount{From: "maker", Source: "/dev/made", To: "user", Target: "/dev/got"}
	with := func(change func(*SharedMount)) SharedMount { m := good; change(&m); return m }
	for name, tc := range map[string]struct {
		m     SharedMount
		class error
	}{
		"unknown container":  {with(func(m *SharedMount) { m.From = "nobody" }), errdefs.ErrFailedPrecondition},
		"no container":       {with(func(m *SharedMount) { m.From = "" }), errdefs.ErrInvalidArgument},
		"for somebody else":  {with(func(m *SharedMount) { m.To = "other" }), errdefs.ErrInvalidArgument},
		"relative source":    {with(func(m *SharedMount) { m.Source = "made" }), errdefs.ErrInvalidArgument},
		"source climbs":      {with(func(m *SharedMount) { m.Source = "/dev/../x" }), errdefs.ErrInvalidArgument},
		"root of the target": {with(func(m *SharedMount) { m.Target = "/" }), errdefs.ErrInvalidArgument},
		"never mounted":      {good, context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			id := strings.ReplaceAll(name, " ", "-")
			ctx := t.Context()
			if tc.class == context.DeadlineExceeded { // the only one that has to wait
				short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
				defer cancel()
				ctx = short
			}
			if err := p.Create(ctx, p.user(t, id, tc.m)); !errors.Is(err, tc.class) {
				t.Errorf("got %v, want %v", err, tc.class)
			}
			if p.known(id) {
				t.Error("the container is there")
			}
		})
	}
	err := p.Create(t.Context(), p.user(t, "user", with(func(m *SharedMount) { m.Source = "/dev" }).fromPod()))
	if err == nil || !strings.Contains(err.Error(), "src_ctr") {
		t.Errorf("a container without a name was found: %v", err)
	}
	if err := p.Destroy(t.Context()); err != nil {
		t.Error(err)
	}
}

func (m SharedMount) fromPod() SharedMount { m.From = "pod1"; return m }

func (r CreateRequest) withoutShm() CreateRequest { r.Spec.Mounts = r.Spec.Mounts[:2]; return r }
