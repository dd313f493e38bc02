package main

import (
	"github.com/coffer-cc/coffer/agent/config"
	"github.com/coffer-cc/coffer/agent/guest"
	"github.com/coffer-cc/coffer/evidence/broker"
	"github.com/coffer-cc/coffer/imagepull"
	"github.com/coffer-cc/coffer/imagepull/registry"
)

// userAgent marks the requests of the puller, also those that a registry sends
// on to another place.
func userAgent() string { return "coffer/" + version }

// openImages makes the puller. Only with sample evidence, which protects nothing,
// may a policy for images be missing; elsewhere each pull is then refused.
func (p *process) openImages(keys broker.Broker) (*imagepull.Puller, error) {
	c := p.config.Image
	return imagepull.New(imagepull.Config{
		WorkDir: c.WorkDir,
		Registry: registry.Config{
			Roots: c.ExtraRoots, Registries: registries(c.Registries), Lookaside: []byte(c.Sigstore),
			Proxy: registry.Proxy{HTTPS: c.Proxy.HTTPS, HTTP: c.Proxy.HTTP, NoProxy: c.Proxy.NoProxy},
			Agent: userAgent(),
		},
		RegistriesURI: c.RegistriesURI, LookasideURI: c.SigstoreURI, CredentialsURI: c.CredentialsURI,
		Policy: []byte(c.Policy), PolicyURI: c.PolicyURI,
		RequirePolicy: p.config.Attestation.TEE != config.SampleTEE,
		Keys:          keys, Layers: c.MaxLayers, Timeout: p.config.Timeouts.ImagePull,
	})
}

func registries(r config.Registries) []registry.Registry {
	var out []registry.Registry
	for _, x := range r.Registry {
		to := registry.Registry{Prefix: x.Prefix, Location: x.Location, Insecure: x.Insecure, Blocked: x.Blocked}
		for _, m := range x.Mirrors {
			to.Mirrors = append(to.Mirrors, registry.Mirror{Location: m.Location, Insecure: m.Insecure})
		}
		out = append(out, to)
	}
	return out
}

// imageMetrics shows pulls, those that run and the last ones that ended.
func imageMetrics(e *guest.Exposition, pulls []imagepull.Progress) {
	e.Gauge("coffer_image_pull_bytes", "Bytes of layers that a pull has")
	for _, p := range pulls {
		e.Sample(float64(p.Bytes), "reference", p.Reference, "digest", p.Digest, "phase", p.Phase)
	}
	e.Gauge("coffer_image_pull_bytes_expected", "Bytes of layers that a pull will have")
	for _, p := range pulls {
		e.Sample(float64(p.Total), "reference", p.Reference, "digest", p.Digest, "phase", p.Phase)
	}
	took := make(map[string]float64)
	for _, p := range pulls {
		for phase, s := range p.Seconds {
			took[phase] += s
		}
	}
	e.Gauge("coffer_image_pull_seconds_total", "Time that the pulls shown spent in each phase, layers added up")
	for phase, s := range took {
		e.Sample(s, "phase", phase)
	}
}
