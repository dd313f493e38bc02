package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/agent/config"
	"github.com/coffer-cc/coffer/agent/container"
	"github.com/coffer-cc/coffer/agent/devices"
	"github.com/coffer-cc/coffer/agent/guest"
	"github.com/coffer-cc/coffer/agent/initdata"
	"github.com/coffer-cc/coffer/agent/memagent"
	"github.com/coffer-cc/coffer/agent/network"
	"github.com/coffer-cc/coffer/agent/policy"
	"github.com/coffer-cc/coffer/agent/sandbox"
	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/imagepull"
	"github.com/coffer-cc/coffer/mount/device"
	"github.com/coffer-cc/coffer/mount/storage"
	"github.com/coffer-cc/coffer/rpc"
	"github.com/coffer-cc/coffer/rpc/passfd"
	"github.com/coffer-cc/coffer/rpc/socket"
)

// stateRoot holds libcontainer's records. It is below /run, where no container
// mounts anything and no path of the host's protocol leads.
const stateRoot = "/run/coffer/containers"

// maxPolicy is the size of the largest policy, which the engine checks again.
const maxPolicy = 16 << 20

// keys of initdata that this program takes effect from.
const (
	keyPolicy = "policy.rego"
	keyAA     = "aa.toml"
	keyCDH    = "cdh.toml"
)

// graph is everything that lives as long as the agent.
type graph struct {
	server    *rpc.Server
	sandbox   *sandbox.Sandbox
	guarded   *guarded
	memory    *memagent.Agent
	streams   *passfd.Port  // nil where streams go through the API alone
	destroyed chan struct{} // closed when the host has destroyed the sandbox
}

// adoptInitdata takes what the pod's owner says over what the image says, and
// returns the first policy.
func (p *process) adoptInitdata(ctx context.Context) (*policy.Rego, error) {
	if err := p.adoptDocument(ctx); err != nil {
		return nil, err
	}
	engine := policy.New()
	if p.document == nil {
		return engine, p.loadPolicy(ctx, engine, p.config.Policy.File)
	}
	if text, ok := p.document.Data[keyPolicy]; ok {
		if err := engine.Replace(ctx, text); err != nil {
			return nil, evidence.InitdataMalformed.Wrap(fmt.Errorf("initdata: %s: %w", keyPolicy, err))
		}
		return engine, nil
	}
	return engine, p.loadPolicy(ctx, engine, p.config.Policy.File)
}

// adoptDocument puts the document's settings over those of the image. It arrives
// on a disk of the host, so it counts only where the hardware vouches for it, or
// where the image does without that.
func (p *process) adoptDocument(ctx context.Context) error {
	binding := p.binding()
	doc, err := initdata.Load(ctx, "/dev", binding)
	if err != nil {
		return initdataFault(err)
	}
	if doc == nil {
		return nil
	}
	if p.bound = binding.Bound(); !p.bound {
		slog.WarnContext(ctx, "initdata is not bound to hardware, as the image allows")
	}
	slog.InfoContext(ctx, "initdata", "algorithm", doc.Algorithm, "digest", fmt.Sprintf("%x", doc.Digest()))
	var report config.Report
	p.config, report, err = config.Merge(p.config, config.Initdata{AA: doc.Data[keyAA], CDH: doc.Data[keyCDH]})
	if err != nil {
		return evidence.InitdataMalformed.Wrap(fmt.Errorf("initdata: %w", err))
	}
	report.Log(ctx)
	p.document = doc
	return nil
}

// binding is how the platform vouches for a document.
func (p *process) binding() initdata.Binding {
	b := initdata.Binding{AllowUnbound: p.config.Attestation.AllowUnbound, Booted: p.onlooker}
	if a, ok := p.platform.(evidence.Anchored); ok {
		b.Anchor = a
	}
	if a, ok := p.platform.(evidence.Extendable); ok {
		b.Extend = a
	}
	return b
}

// initdataFault tells a document that must not take effect from one that is
// none. What the platform could not answer has a code already.
func initdataFault(err error) error {
	if errdefs.IsInvalidArgument(err) {
		return evidence.InitdataMalformed.Wrap(err)
	}
	return evidence.InitdataRefused.Wrap(err)
}

// loadPolicy puts the image's policy in force. Without one everything is denied.
func (p *process) loadPolicy(ctx context.Context, engine *policy.Rego, file string) error {
	st, err := os.Stat(file)
	if errors.Is(err, os.ErrNotExist) {
		slog.WarnContext(ctx, "no policy loaded, every request is denied", "file", file)
		return nil
	}
	if err == nil && st.Size() > maxPolicy {
		err = fmt.Errorf("%d bytes: %w", st.Size(), errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return fmt.Errorf("policy %s: %w", file, err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("policy %s: %w", file, err)
	}
	if err := engine.Replace(ctx, string(text)); err != nil {
		return fmt.Errorf("policy %s: %w", file, err)
	}
	return nil
}

// build makes the parts and introduces them to each other.
func (p *process) build(finder *device.Finder, stack *network.Stack, engine *policy.Rego) (*graph, error) {
	for _, dir := range []string{storage.DefaultRoot, stateRoot, guest.SharedDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("make run directory: %w", err)
		}
	}
	g := &graph{destroyed: make(chan struct{})}
	reserved, err := reservedFor(p.config.Image.WorkDir)
	if err != nil {
		return nil, err
	}
	if g.guarded, err = p.guard(); err != nil {
		return nil, err
	}
	confidential := p.confidential()
	loadModule := func(ctx context.Context, name string) error { return guest.Modules{}.Load(ctx, name, nil) }
	deps := storage.Deps{Devices: finder, LoadModule: loadModule, NoIntegrity: !p.config.Storage.Integrity,
		PauseBundle: p.config.PauseBundle, Images: g.guarded.images, Reserved: reserved, Confidential: confidential}
	handlers := storage.Handlers(deps)
	manager := storage.NewManager(deps, handlers)
	g.sandbox = sandbox.New(sandbox.Deps{
		Containers: container.NewLibcontainer(container.LibcontainerOptions{StateRoot: stateRoot, Systemd: !p.init}),
		Options:    container.Options{PipeSize: p.config.Container.PipeSize},
		Storage:    manager,
		Images:     imageRules{engine, p.ledger},
		Reserved:   reserved,
		Devices:    finder,
		CDI:        devices.CDI{Timeout: p.config.Timeouts.CDI, Visible: p.config.Container.VisibleCDIDevices},
		SetDNS: func(ctx context.Context, lines []string) error {
			return network.SetDNS(ctx, network.DefaultDNSFiles(), lines)
		},
		LoadModule: func(ctx context.Context, m sandbox.KernelModule) error {
			return guest.Modules{}.Load(ctx, m.Name, m.Parameters)
		},
		Confidential: confidential,
	})
	if p.config.Server.PassFDPort != 0 {
		g.streams = passfd.New(socket.Port)
	}
	machine := guest.New()
	if !confidential {
		// A guest that does not trust its host takes memory only when a call
		// that the policy allowed says so, or its kernel is told to.
		finder.Memory = machine.TakeBlock
	}
	metrics := &guest.Metrics{Machine: machine}
	g.memory = memagent.New(p.config.MemAgent, memagent.DefaultPaths())
	g.server, err = rpc.New(rpc.Deps{
		Policy: recordedPolicy{engine, p.ledger}, Sandbox: g.sandbox, Network: stack, Machine: machine,
		Metrics: metrics, Copier: &guest.Copier{Root: guest.SharedDir, Confined: confidential},
		Swap: guest.Swap{Devices: finder}, Volumes: guest.Volumes{Mounts: manager},
		MemAgent: g.memory, Clock: p.clock, Confidential: confidential,
		Details: rpc.Details{
			Version: version, Init: p.init, Seccomp: container.Seccomp,
			StorageHandlers: slices.Sorted(maps.Keys(handlers)),
		},
		Destroyed: func() { close(g.destroyed) },
		Streams:   g.streams,
		Intercept: p.tracer.Interceptor(),
	})
	metrics.Extra = append(metrics.Extra, p.ownMetrics(g))
	return g, err
}

// reservedFor returns the names below the run directory where the host may put
// nothing, because images are kept there.
func reservedFor(workDir string) ([]string, error) {
	out := []string{filepath.Base(imagepull.DefaultWorkDir)}
	above, err := filepath.Rel(workDir, storage.DefaultRoot)
	if err == nil && filepath.IsLocal(above) {
		return nil, fmt.Errorf("image.work_dir: %s holds what the host mounts: %w", workDir, errdefs.ErrInvalidArgument)
	}
	below, err := filepath.Rel(storage.DefaultRoot, workDir)
	if name, _, _ := strings.Cut(below, "/"); err == nil && filepath.IsLocal(below) && name != out[0] {
		out = append(out, name)
	}
	return out, nil
}

// loopbackCID is the address of vsock peers inside the guest.
const loopbackCID = 1

// peers says who may connect beside the host.
func (p *process) peers() []socket.Option {
	if slices.Contains(p.config.Server.PeerCIDs, loopbackCID) {
		return []socket.Option{socket.WithLoopback()}
	}
	return nil
}

// stop takes the graph down: calls first, then the pod.
func (g *graph) stop(ctx context.Context) error {
	err := g.server.Stop(ctx)
	err = errors.Join(err, g.sandbox.Destroy(ctx))
	return errors.Join(err, g.guarded.images.Close(ctx))
}
