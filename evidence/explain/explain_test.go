package explain

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/broker"
	"github.com/coffer-cc/coffer/evidence/devkbs"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/resource"
	"github.com/coffer-cc/coffer/evidence/tee"
)

// sealed is a platform that answers the challenge of a verifier alone.
type sealed struct{ evidence.Collector }

func (s sealed) Collect(context.Context, evidence.ReportData) (evidence.Evidence, error) {
	return evidence.Evidence{}, errors.New("asked without a challenge")
}

func (s sealed) CollectFor(ctx context.Context, challenge string, rd evidence.ReportData) (evidence.Evidence, error) {
	if challenge == "" {
		return evidence.Evidence{}, errors.New("an empty challenge")
	}
	return s.Collector.Collect(ctx, rd)
}

// TestChallenged refuses without a broker, and with one shows what was sent to
// it.
func TestChallenged(t *testing.T) {
	k := evidencetest.NewKBS(t, devkbs.Options{AllowSample: true, Resources: evidencetest.Resources(nil)})
	p := Plan{
		Platform: func(context.Context) (evidence.Collector, error) { return sealed{tee.Sample()}, nil },
		Initdata: func(context.Context, evidence.Collector) (string, error) { return "none", nil },
	}
	r := Run(t.Context(), p)
	if err := r.Err(); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "--kbs") || r.Evidence.Data != nil || ExitCode(err) != 1 {
		t.Errorf("without a broker: %v, evidence %s", err, r.Evidence.Data)
	}
	p.Broker = func(g evidence.Collector, observe func(string, time.Duration)) (broker.Broker, error) {
		return broker.Open(broker.Config{URL: k.URL, Observe: observe}, g)
	}
	r = Run(t.Context(), p)
	if r.Err() != nil || !strings.Contains(string(r.Evidence.Data), "report_data") || r.Evidence.Kind != evidence.Sample {
		t.Errorf("with a broker: %v, evidence %s", r.Err(), r.Evidence.Data)
	}
}

// TestMark adds to the evidence what the guest has to say.
func TestMark(t *testing.T) {
	p := Plan{
		Platform: func(context.Context) (evidence.Collector, error) { return tee.Sample(), nil },
		Initdata: func(context.Context, evidence.Collector) (string, error) { return "none", nil },
		Mark:     evidence.Evidence.Unbound,
	}
	if r := Run(t.Context(), p); r.Err() != nil || !r.Evidence.SaysUnbound() {
		t.Errorf("%v, %s", r.Err(), r.Evidence.Data)
	}
}

// TestRun has each leg fail: those before it are ok, those behind it skipped.
func TestRun(t *testing.T) {
	k := evidencetest.NewKBS(t, devkbs.Options{AllowSample: true, Resources: evidencetest.Resources(map[string]string{"default/key/1": "contents"})})
	strict := evidencetest.NewKBS(t, devkbs.Options{Resources: evidencetest.Resources(nil)})
	fault := errors.New("no")
	legs := []evidence.Leg{
		evidence.LegPlatform, evidence.LegInitdata, evidence.LegDriver, evidence.LegEndorsement,
		evidence.LegTransport, evidence.LegVerdict, evidence.LegPolicy, evidence.LegResource,
	}
	for name, c := range map[string]struct {
		platform, initdata, driver error
		url, tag                   string
		at                         evidence.Leg // "" where all is well
		exit                       int
	}{
		"all is well": {url: k.URL, tag: "1"},
		"platform":    {platform: evidence.PlatformNone.Wrap(fault), url: k.URL, tag: "1", at: evidence.LegPlatform, exit: 10},
		"initdata":    {initdata: evidence.InitdataRefused.Wrap(fault), url: k.URL, tag: "1", at: evidence.LegInitdata, exit: 11},
		"driver":      {driver: evidence.DriverConfigfs.Wrap(fault), url: k.URL, tag: "1", at: evidence.LegDriver, exit: 12},
		"transport":   {url: "", tag: "1", at: evidence.LegTransport, exit: 14},
		"verdict":     {url: strict.URL, tag: "1", at: evidence.LegVerdict, exit: 15},
		"resource":    {url: k.URL, tag: "2", at: evidence.LegResource, exit: 17},
		"no code":     {platform: fault, url: k.URL, tag: "1", at: evidence.LegPlatform, exit: 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := Run(t.Context(), Plan{
				Platform: func(context.Context) (evidence.Collector, error) {
					return &evidencetest.Collector{Inner: tee.Sample(), Err: c.driver}, c.platform
				},
				Initdata: func(context.Context, evidence.Collector) (string, error) { return "none", c.initdata },
				Broker: func(g evidence.Collector, observe func(string, time.Duration)) (broker.Broker, error) {
					return broker.Open(broker.Config{URL: c.url, Observe: observe}, g)
				},
				Resource: &resource.URI{Repository: "default", Type: "key", Tag: c.tag},
			})
			want := OK
			for i, s := range r.Steps {
				status := s.Status
				if s.Leg == evidence.LegEndorsement && status == Warning {
					status = OK // sample evidence has none
				}
				if s.Leg == c.at {
					want = Faulty
				}
				if s.Leg != legs[i] || status != want {
					t.Errorf("step %d: %s %s, want %s %s", i, s.Leg, s.Status, legs[i], want)
				}
				if want == Faulty {
					want = Skipped
				}
			}
			if len(r.Steps) != len(legs) || ExitCode(r.Err()) != c.exit || (r.Secret == nil) != (c.at != "") {
				t.Errorf("%d steps, exit code %d, %v", len(r.Steps), ExitCode(r.Err()), r.Err())
			}
			if r.Secret != nil && (r.Secret.Size != 8 || strings.Contains(r.Secret.SHA256, "contents")) {
				t.Errorf("%+v", r.Secret)
			}
		})
	}
}
