// Package explain walks the legs of attestation one by one, for whoever wants to
// see how far a guest gets and what stops it. It keeps nothing and changes
// nothing: the evidence is a statement of the moment, a secret is measured and
// wiped.
package explain

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/broker"
	"github.com/coffer-cc/coffer/evidence/resource"
	"github.com/coffer-cc/coffer/evidence/tee"
)

// Plan says which legs are walked, and how.
type Plan struct {
	// Platform finds the platform.
	Platform func(context.Context) (evidence.Collector, error)
	// Initdata compares the document of the guest with the platform, and says
	// what came of it. The broker is opened after it, since it may name one.
	Initdata func(context.Context, evidence.Collector) (string, error)
	// Mark, if not nil, adds what the guest itself has to say to the evidence of
	// the driver's leg.
	Mark func(evidence.Evidence) (evidence.Evidence, error)
	// Data is what the evidence of the driver's leg is bound to.
	Data evidence.ReportData
	// Broker opens the broker to attest to; nil ends the walk before it. It
	// passes observe on to the broker's configuration.
	Broker func(c evidence.Collector, observe func(phase string, d time.Duration)) (broker.Broker, error)
	// Resource is fetched at the end; nil fetches none.
	Resource *resource.URI
}

// Result is what was seen.
type Result struct {
	Steps []Step
	// Evidence is bound to Plan.Data; of a platform that answers a verifier it is
	// the answer to the broker, and without data where none was reached.
	Evidence evidence.Evidence
	Secret   *Secret // nil without a resource
}

// Secret is all that is told of a resource.
type Secret struct {
	URI    string `json:"uri"`
	Size   int    `json:"size"`
	SHA256 string `json:"sha256"`
}

// Err is the fault that ended the walk, nil where it came to its end.
func (r *Result) Err() error {
	for _, s := range r.Steps {
		if s.Err != nil {
			return s.Err
		}
	}
	return nil
}

// Run walks until the first leg with a fault; the following ones are skipped.
func Run(ctx context.Context, p Plan) *Result {
	w := &walk{}
	r := &Result{}
	var c evidence.Collector
	ok := w.leg(evidence.LegPlatform, func() (text string, err error) {
		if c, err = p.Platform(ctx); err != nil {
			return "", err
		}
		return string(c.Kind()), nil
	}) && w.leg(evidence.LegInitdata, func() (string, error) {
		return p.Initdata(ctx, c)
	}) && w.leg(evidence.LegDriver, func() (string, error) {
		return w.collect(ctx, p, &c, r)
	})
	if ok {
		w.steps = append(w.steps, endorsement(r.Evidence))
	}
	if ok && p.Broker != nil {
		w.broker(ctx, p, c, r)
	}
	if e := w.seen.Load(); e != nil {
		r.Evidence = *e
	}
	r.Steps = w.skipRest(p)
	return r
}

// collect asks the driver. What answers a verifier alone is watched instead,
// when the broker asks it.
func (w *walk) collect(ctx context.Context, p Plan, c *evidence.Collector, r *Result) (string, error) {
	if answers, ok := (*c).(evidence.Challenged); ok {
		r.Evidence.Kind = (*c).Kind()
		if p.Broker == nil {
			return "", fmt.Errorf("%s evidence answers the challenge of a key broker, and none is named: attest to one (--kbs): %w", (*c).Kind(), errdefs.ErrFailedPrecondition)
		}
		*c = watched{*c, answers, &w.seen}
		return "asked when the broker has sent its challenge", nil
	}
	e, err := (*c).Collect(ctx, p.Data)
	if err == nil && p.Mark != nil {
		e, err = p.Mark(e)
	}
	r.Evidence = e
	return fmt.Sprintf("%d bytes of evidence", len(e.Data)), err
}

// watched keeps the answer to a challenge.
type watched struct {
	evidence.Collector
	answers evidence.Challenged
	seen    *atomic.Pointer[evidence.Evidence] // a broker's client may go on when the walk is over
}

// CollectFor is that of evidence.Challenged.
func (w watched) CollectFor(ctx context.Context, challenge string, rd evidence.ReportData) (evidence.Evidence, error) {
	e, err := w.answers.CollectFor(ctx, challenge, rd)
	if err == nil {
		w.seen.Store(&e)
	}
	return e, err
}

// endorsement looks whether the platform's certificates came along.
func endorsement(e evidence.Evidence) Step {
	s := Step{Leg: evidence.LegEndorsement, Status: OK}
	switch e.Kind {
	case evidence.SNP, evidence.AzSNP:
		fields, _ := tee.Decode(e) // what was just collected can be read
		s.Text = valueOf(fields, tee.FieldCertificates)
		if s.Text == tee.NoCertificates {
			s.Status, s.Code = Warning, evidence.EndorsementCertificates
		}
	case evidence.TDX, evidence.AzTDX:
		s.Text = "the quote holds its certificates"
	case evidence.CCA:
		s.Text = "the verifier has to know the platform's key"
	case evidence.SE:
		s.Text = "the verifier knows the machine by its host key"
	case evidence.TPM:
		s.Text = "nothing vouches for the key of a plain TPM: the verifier has to know it"
		s.Status = Warning
	case evidence.Sample:
		s.Text = "sample evidence proves nothing"
		s.Status = Warning
	}
	return s
}

func valueOf(fields []tee.Field, name string) string {
	for _, f := range fields {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// broker walks the legs behind the guest.
func (w *walk) broker(ctx context.Context, p Plan, c evidence.Collector, r *Result) {
	phases := &phases{took: map[string]time.Duration{}}
	b, err := p.Broker(c, phases.observe)
	start := time.Now()
	if err == nil {
		err = b.Attest(ctx)
	}
	if !w.settle(phases, err, time.Since(start), evidence.LegTransport, evidence.LegVerdict) || p.Resource == nil {
		return
	}
	start = time.Now()
	secret, err := b.Resource(ctx, *p.Resource)
	if err == nil {
		defer secret.Wipe()
		sum := sha256.Sum256(secret)
		r.Secret = &Secret{URI: p.Resource.String(), Size: len(secret), SHA256: hex.EncodeToString(sum[:])}
	}
	w.settle(phases, err, time.Since(start), evidence.LegPolicy, evidence.LegResource)
}

// ExitCode is a number for each leg, an interface to scripts: 1 is a fault
// without a code.
func ExitCode(err error) int {
	if err == nil {
		return 0
	}
	var exit = [...]evidence.Leg{
		evidence.LegPlatform, evidence.LegInitdata, evidence.LegDriver, evidence.LegEndorsement,
		evidence.LegTransport, evidence.LegVerdict, evidence.LegPolicy, evidence.LegResource,
	}
	for i, leg := range exit {
		if evidence.CodeOf(err).Leg() == leg {
			return 10 + i
		}
	}
	return 1
}
