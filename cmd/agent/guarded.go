package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/agent/guest"
	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/broker"
	"github.com/coffer-cc/coffer/evidence/kbs"
	"github.com/coffer-cc/coffer/evidence/tee"
	"github.com/coffer-cc/coffer/imagepull"
	"github.com/coffer-cc/coffer/rpc/socket"
	"github.com/coffer-cc/coffer/rpc/workload"
)

// guarded is the half of the graph that deals with evidence and secrets.
type guarded struct {
	broker broker.Broker
	images *imagepull.Puller
	phases phases
	faults faults
}

// guard opens the key broker. A guest on no known platform serves all the same;
// what needs evidence is refused when asked for.
func (p *process) guard() (*guarded, error) {
	g := &guarded{}
	settings, err := p.brokerConfig()
	if err != nil {
		return nil, err
	}
	settings.Epoch, settings.Observe = p.ledger.epoch.Load, g.phases.observe
	keys, err := broker.Open(settings, p.platform)
	if err != nil {
		return nil, fmt.Errorf("key broker: %w", err)
	}
	g.broker = watched{keys, &g.faults}
	if g.images, err = p.openImages(g.broker); err != nil {
		return nil, fmt.Errorf("image pull: %w", err)
	}
	return g, nil
}

// brokerConfig is what the settings say of the key broker.
func (p *process) brokerConfig() (broker.Config, error) {
	attached, err := attestedDevices(p.config.Attestation.Devices)
	if err != nil {
		return broker.Config{}, err
	}
	var text []byte
	if p.document != nil {
		text = p.document.Raw
	}
	at, keeper, verifier := p.config.Attestation, p.config.Broker(), p.config.Verifier()
	return broker.Config{
		URL: keeper.URL, Cert: keeper.Cert, AttestURL: verifier.URL, AttestCert: verifier.Cert,
		Pin: at.PinCert, Proxy: kbs.Proxy(at.Proxy), KeyAlgorithm: at.KeyAlgorithm,
		InitData: text, Unbound: p.document != nil && !p.bound, Missing: p.missing, Devices: attached,
	}, nil
}

// attestedDevices opens the devices that the image names, KIND or KIND=SOCKET.
func attestedDevices(names []string) ([]evidence.Collector, error) {
	var out []evidence.Collector
	for i, name := range names {
		kind, socket, external := strings.Cut(name, "=")
		switch {
		case external && kind != "" && filepath.IsAbs(socket):
			out = append(out, tee.Helper(evidence.Kind(kind), socket))
		case name == string(evidence.SampleDevice):
			out = append(out, tee.SampleDevice())
		default:
			return nil, fmt.Errorf("attestation.devices: entry %d is neither %s nor KIND=/SOCKET: %w", i+1, evidence.SampleDevice, errdefs.ErrInvalidArgument)
		}
	}
	return out, nil
}

// findPlatform returns nil where there is no platform. Sample evidence comes only from
// the image's own word for it.
func (p *process) findPlatform(ctx context.Context) (evidence.Collector, error) {
	c, err := tee.Select(p.config.Attestation.TEE, p.drivers())
	switch {
	case errors.Is(err, errdefs.ErrNotFound) && p.config.Attestation.TEE == "":
		slog.WarnContext(ctx, "no confidential platform", "error", err)
		p.missing = err
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("attestation: %w", err)
	}
	slog.InfoContext(ctx, "platform", "tee", string(c.Kind()))
	return c, nil
}

// confidential reports whether the guest is kept from its host. A platform that
// was found stays found: a vTPM that fails when it is asked once more must not
// open the guest to its host.
func (p *process) confidential() bool {
	ds := p.drivers()
	return p.platform != nil && tee.Keeps(p.platform.Kind(), ds) || tee.Present(ds)
}

// drivers are the platforms to look for, as the image configures them.
func (p *process) drivers() []tee.Driver {
	at := p.config.Attestation.TPM
	return tee.Drivers(dialQGS, tee.AttestationKey(at.Device, at.AKHandle))
}

// dialQGS reaches the quoting service of the host over vsock.
func dialQGS(ctx context.Context, port uint32) (net.Conn, error) {
	return socket.Dial(ctx, fmt.Sprintf("vsock://%d:%d", hostCID, port))
}

// hostCID is the vsock address of the host.
const hostCID = 2

// openWorkload serves the containers of the pod, where that was asked for.
func (p *process) openWorkload(ctx context.Context, g *guarded) error {
	if !p.config.Workload.Resources() {
		return nil
	}
	l, err := workload.Listen(ctx, workload.Address)
	if err != nil {
		return fmt.Errorf("open the workload API: %w", err)
	}
	h := workload.New(workload.Deps{Resources: g.broker, Own: userAgent()})
	p.loop(func(ctx context.Context) error { return workload.Serve(ctx, l, h) })
	return nil
}

// metrics adds how long the proving took, and the pulls.
func (g *guarded) metrics(e *guest.Exposition) {
	g.phases.metrics(e)
	g.faults.metrics(e)
	imageMetrics(e, g.images.Progress())
}
