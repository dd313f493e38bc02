// Package broker gives out resources by name, whoever keeps them. To add a key
// broker of another kind, write its file and a case in Open.
package broker

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/kbs"
	"github.com/coffer-cc/coffer/evidence/resource"
	"github.com/coffer-cc/coffer/evidence/secret"
)

// A Broker hands out resources. The caller owns the bytes and wipes them.
// Resources themselves are not kept: each call asks the broker's policy again,
// while the attestation behind it is shared. Calls may be concurrent.
type Broker interface {
	// Attest makes sure that the broker believes this guest, as Resource does
	// before anything else.
	Attest(ctx context.Context) error
	Resource(ctx context.Context, u resource.URI) (secret.Bytes, error)
}

// Config names the key broker of the guest.
type Config struct {
	URL          string // "" is a guest without a key broker
	Cert         string // PEM certificates to trust in addition
	AttestURL    string // the broker that attests, "" if it is the same
	AttestCert   string
	Pin          bool // trust those certificates alone
	Proxy        kbs.Proxy
	KeyAlgorithm string // "" is the default

	// Devices make statements beside the platform's: see kbs.Config.
	Devices []evidence.Collector
	// InitData is the measured text, or nil.
	InitData []byte
	// Unbound has the evidence say that no hardware vouches for it.
	Unbound bool
	// Missing, if not nil, is why there is no collector.
	Missing error
	// Epoch, if not nil, counts changes of the guest: see kbs.Config.
	Epoch func() uint64
	// Observe, if not nil, hears how long the phases "attest" and "key" took.
	Observe func(phase string, d time.Duration)
}

// Open returns the broker that the configuration names. It connects to nothing
// before the first resource is asked for. Without a URL, or without a
// collector since the guest runs on no known platform, every resource is
// refused with errdefs.ErrFailedPrecondition: a pod that needs none starts.
func Open(c Config, collector evidence.Collector) (Broker, error) {
	switch {
	case c.URL == "":
		return refuse(evidence.TransportConfig, "no key broker is configured"), nil
	case collector == nil && c.Missing != nil:
		code, text := evidence.CodeOf(c.Missing), c.Missing.Error()
		if code == "" {
			return refuse(evidence.PlatformNone, "no evidence: "+text), nil
		}
		text = strings.Replace(text, string(code)+": ", "", 1) // it goes in front
		return refuse(code, "no evidence: "+text), nil
	case collector == nil:
		return refuse(evidence.PlatformNone, "no confidential platform to attest for"), nil
	}
	client, err := kbs.New(kbs.Config{
		URL:          c.URL,
		Cert:         c.Cert,
		AttestURL:    c.AttestURL,
		AttestCert:   c.AttestCert,
		Pin:          c.Pin,
		Proxy:        c.Proxy,
		Collector:    collector,
		InitData:     c.InitData,
		Unbound:      c.Unbound,
		KeyAlgorithm: c.KeyAlgorithm,
		Devices:      c.Devices,
		Epoch:        c.Epoch,
		Observe:      c.Observe,
	})
	if err != nil {
		return nil, evidence.TransportConfig.Wrap(fmt.Errorf("open key broker: %w", err))
	}
	return client, nil
}

// refuser is a broker that has nothing, and says why.
type refuser struct{ why error }

func refuse(code evidence.Code, why string) Broker {
	return refuser{code.Wrap(fmt.Errorf("%s: %w", why, errdefs.ErrFailedPrecondition))}
}

// Attest always fails.
func (r refuser) Attest(context.Context) error { return r.why }

// Resource always fails.
func (r refuser) Resource(_ context.Context, u resource.URI) (secret.Bytes, error) {
	return nil, fmt.Errorf("fetch %s: %w", u, r.why)
}
