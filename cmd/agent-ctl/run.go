package main

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os/signal"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/protos/agentpb"
	"github.com/coffer-cc/coffer/rpc/wire"
)

// runFlags are what run adds to the flags of a process.
type runFlags struct {
	processFlags
	name       string
	sandbox    string
	hostname   string
	spec       string
	detach     bool
	keep       bool
	readonly   bool
	quiet      bool
	noSandbox  bool
	createWait time.Duration
}

func (a *app) runCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run IMAGE [flags] [-- COMMAND [ARG...]]",
		Short: "Pull an image in the guest and run a container of it",
		Long: "Pull an image in the guest and run a container of it. The guest verifies and\n" +
			"decrypts the image by its own rules. Without a COMMAND it runs what the\n" +
			"verified image says. The container is removed at the end, and its exit code\n" +
			"is ours.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.checkTerminal(f.stdin, f.tty); err != nil {
				return err
			}
			r, err := a.newRun(&f, args[0], args[1:])
			if err != nil {
				return err
			}
			return a.withClient(cmd.Context(), func(c *client) error {
				r.c = c
				return r.run(cmd.Context())
			})
		},
	}
	fl := cmd.Flags()
	fl.SetInterspersed(true)
	f.define(fl)
	fl.StringVar(&f.name, "name", "", "`ID` of the container (default: a new one)")
	fl.StringVar(&f.sandbox, "sandbox", "agent-ctl", "`ID` of the sandbox, if there is none yet")
	fl.BoolVar(&f.noSandbox, "no-sandbox", false, "do not create a sandbox")
	fl.StringVar(&f.hostname, "hostname", "coffer", "host `NAME` of the sandbox, if there is none yet")
	fl.StringVar(&f.spec, "spec", "", "take the OCI `FILE` config.json instead of the default spec")
	fl.BoolVarP(&f.detach, "detach", "d", false, "print the container's id and leave it running")
	fl.BoolVar(&f.keep, "keep", false, "do not remove the container at the end")
	fl.BoolVar(&f.readonly, "read-only", false, "make the root file system read-only")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "show no progress")
	fl.DurationVar(&f.createWait, "create-timeout", 20*time.Minute, "limit for creating the container, pull included")
	return cmd
}

// containerRun is one life: create, start, attach, remove.
type containerRun struct {
	*app
	*runFlags
	c     *client
	image string
	spec  *specs.Spec
}

func (a *app) newRun(f *runFlags, image string, args []string) (*containerRun, error) {
	if f.name == "" {
		f.name = newID()
	}
	if err := wire.CheckContainerID("--name", f.name); err != nil {
		return nil, usageError{err}
	}
	if f.detach && f.stdin {
		return nil, usagef("--detach and --interactive exclude each other")
	}
	p, err := f.process(args)
	if err != nil {
		return nil, err
	}
	s := defaultSpec(f.name, p)
	if f.spec != "" {
		if s, err = readSpec(f.spec, f.name); err != nil {
			return nil, err
		}
		s.Process.Terminal = f.tty
		if len(args) > 0 {
			s.Process.Args = args
		}
		s.Process.Env = append(s.Process.Env, f.env...)
	}
	s.Root.Readonly = s.Root.Readonly || f.readonly
	s.Hostname = f.hostname
	s.Annotations = withAnnotations(s.Annotations, image)
	return &containerRun{app: a, runFlags: f, image: image, spec: s}, nil
}

// withAnnotations adds what a CRI runtime says about a container of a pod.
func withAnnotations(in map[string]string, image string) map[string]string {
	out := map[string]string{
		"io.kubernetes.cri.container-type":         "container",
		"io.kubernetes.cri.image-name":             image,
		"io.katacontainers.pkg.oci.container_type": "pod_container",
	}
	maps.Copy(out, in)
	return out
}

// run undoes what it did when a later step fails. Removal ignores the caller's
// cancellation: a container must not stay because someone was impatient.
func (r *containerRun) run(ctx context.Context) (err error) {
	if err := r.ensureSandbox(ctx); err != nil {
		return err
	}
	if err := r.create(ctx); err != nil {
		return err
	}
	if !r.keep && !r.detach {
		defer r.remove(context.WithoutCancel(ctx))
	}
	if err := r.start(ctx); err != nil {
		if r.detach {
			r.remove(context.WithoutCancel(ctx))
		}
		return err
	}
	s := session{app: r.app, c: r.c, container: r.name, stdin: r.stdin, tty: r.tty}
	if r.detach {
		s.closeIn(ctx)
		return r.print(map[string]string{"id": r.name}, [][]string{{r.name}})
	}
	status, err := s.attach(ctx)
	if err != nil {
		return err
	}
	if status != 0 {
		return workloadExit(status)
	}
	return nil
}

// create waits for the pull. An interrupt ends the wait; the guest goes on
// pulling, and the next attempt finds what it has.
func (r *containerRun) create(ctx context.Context) error {
	ctx, cancel := limit(ctx, r.createWait)
	defer cancel()
	ctx, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM)
	defer stop()
	req, err := r.request()
	if err != nil {
		return err
	}
	if !r.quiet {
		defer r.showPull(ctx, r.c)()
	}
	_, err = r.c.agent.CreateContainer(ctx, req)
	if cut := ctx.Err(); cut != nil {
		// Nobody knows how far it came. Usually there is nothing to remove.
		_ = r.forget(context.WithoutCancel(ctx))
		err = errors.Join(err, cut)
	}
	return failed("CreateContainer", err)
}

// request carries the image as a storage that the guest pulls, the way a shim
// asks for it.
func (r *containerRun) request() (*agentpb.CreateContainerRequest, error) {
	meta, err := json.Marshal(map[string]any{"metadata": r.spec.Annotations})
	if err != nil {
		return nil, err
	}
	return &agentpb.CreateContainerRequest{
		ContainerId: r.name,
		ExecId:      r.name,
		OCI:         wire.SpecMessage(r.spec),
		Storages: []*agentpb.Storage{{
			Driver:        "image_guest_pull",
			DriverOptions: []string{"image_guest_pull=" + string(meta)},
			Source:        r.image,
			Fstype:        "overlay",
			MountPoint:    rootfs(r.name),
		}},
	}, nil
}

func (r *containerRun) start(ctx context.Context) error {
	ctx, cancel := r.c.limit(ctx)
	defer cancel()
	_, err := r.c.agent.StartContainer(ctx, &agentpb.StartContainerRequest{ContainerId: r.name})
	return failed("StartContainer", err)
}

// remove only notes its failure, since something more important is being
// reported.
func (r *containerRun) remove(ctx context.Context) {
	if err := r.forget(ctx); err != nil {
		r.note("%v", err)
	}
}

// forget kills what still runs and removes the container.
func (r *containerRun) forget(ctx context.Context) error {
	ctx, cancel := r.c.limit(ctx)
	defer cancel()
	_, err := r.c.agent.RemoveContainer(ctx, &agentpb.RemoveContainerRequest{ContainerId: r.name})
	return failed("RemoveContainer", err)
}
