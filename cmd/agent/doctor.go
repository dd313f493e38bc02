package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/agent/doctor"
	"github.com/coffer-cc/coffer/agent/policy"
	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/kbs"
	"github.com/coffer-cc/coffer/evidence/tee"
)

const doctorUsage = `coffer-agent doctor [flags]

Looks over the guest and says what would keep pods from running in it: platform,
driver, initdata, policy, kernel, clock, entropy, cgroups, memory, space, vsock,
and the way to key broker and registries. It may run beside the service, sends
nothing to anybody and changes nothing.

      --registry HOST   look also for the way to this registry
  -o, --output FORMAT   text or json
      --timeout TIME    for the checks, which run at the same time; 5 seconds by
                        default
  -c, --config FILE     settings instead of those that the service reads
  -h, --help            print this

Exit codes: 0 no fault, whether or not there are warnings, 1 a fault, 2 wrong usage.
`

// doctorTime is long enough for a quote, and for a resolver's second attempt.
const doctorTime = 5 * time.Second

// doctorRole is one life of coffer-agent doctor.
func doctorRole(args []string, out, errs io.Writer) int {
	o := &oneShot{process: &process{onlooker: true}, name: "doctor", out: out, err: errs}
	flags := o.flags(doctorTime)
	registry := flags.String("registry", "", "")
	rest, code, done := o.parse(flags, args, doctorUsage)
	if done {
		return code
	}
	if len(rest) > 0 {
		return o.misused("%q: takes no arguments", rest[0])
	}
	limit := o.timeout
	o.timeout += time.Second // the checks end first
	ctx, end, err := o.begin()
	if err != nil {
		o.tell(err.Error())
		return 1
	}
	defer end()
	findings := doctor.Run(ctx, o.checks(*registry), limit)
	o.showFindings(findings)
	if doctor.Worst(findings) == doctor.Fault {
		return 1
	}
	return 0
}

// checks are those of the guest between those that need the settings.
func (o *oneShot) checks(registry string) []doctor.Check {
	seconds, _ := strconv.ParseInt(built, 10, 64) // keepClock refuses a build without it
	err := o.settings()
	if err != nil {
		guest := doctor.Here(o.config.Image.WorkDir, time.Unix(seconds, 0), true)
		return append([]doctor.Check{{Name: "configuration", Look: func(context.Context) doctor.Finding {
			return doctor.Finding{Status: doctor.Fault, Text: err.Error(), Remedy: "correct the key; docs/config.md has all of them"}
		}}}, guest.Checks()...)
	}
	s := &survey{oneShot: o}
	s.walk = sync.OnceFunc(s.look)
	vports := strings.HasPrefix(o.config.Server.Addr, "vsock://")
	guest := doctor.Here(o.config.Image.WorkDir, time.Unix(seconds, 0), vports)
	out := []doctor.Check{
		{Name: "configuration", Look: s.configuration},
		{Name: "platform", Look: s.platformCheck}, {Name: "driver", Look: s.driver},
		{Name: "initdata", Look: s.initdata}, {Name: "policy", Look: s.policy},
	}
	out = append(out, guest.Checks()...)
	out = append(out, doctor.Check{Name: "key broker", Look: s.broker})
	return append(out, doctor.Check{Name: "registries", Look: func(ctx context.Context) doctor.Finding { return s.registries(ctx, registry) }})
}

// showFindings prints the table, remedies below what they are for.
func (o *oneShot) showFindings(findings []doctor.Finding) {
	if o.output == "json" {
		o.json(struct {
			Status doctor.Status    `json:"status"`
			Checks []doctor.Finding `json:"checks"`
		}{doctor.Worst(findings), findings})
		return
	}
	rows := [][]string{{"CHECK", "STATUS", ""}}
	for _, f := range findings {
		rows = append(rows, []string{f.Check, string(f.Status), f.Text})
		if f.Remedy != "" {
			rows = append(rows, []string{"", "", "remedy: " + f.Remedy})
		}
	}
	o.table(rows)
}

// survey looks at platform and initdata once, for all checks that depend on
// them.
type survey struct {
	*oneShot
	walk func() // the first call looks, the others wait for it

	platformErr, initdataErr, collectErr error
	evidence                             evidence.Evidence
	took                                 time.Duration
}

func (s *survey) look() {
	ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
	defer cancel()
	s.platform, s.platformErr = tee.Select(s.config.Attestation.TEE, s.drivers())
	if s.platformErr != nil {
		s.platform = nil
	}
	s.initdataErr = s.adoptDocument(ctx)
	if s.platform == nil || s.answers() {
		return
	}
	start := time.Now()
	s.evidence, s.collectErr = s.platform.Collect(ctx, evidence.ReportData{})
	s.took = time.Since(start)
}

// answers reports whether the platform has no evidence without a verifier.
func (s *survey) answers() bool {
	_, ok := s.platform.(evidence.Challenged)
	return ok
}

func finding(status doctor.Status, format string, args ...any) doctor.Finding {
	return doctor.Finding{Status: status, Text: fmt.Sprintf(format, args...)}
}

// blame is a fault with the remedy of its code.
func blame(err error) doctor.Finding {
	return doctor.Finding{Status: doctor.Fault, Text: err.Error(), Remedy: evidence.CodeOf(err).Meaning().Remedy}
}

// rootNeeded is what a check says to others than root.
func rootNeeded() doctor.Finding {
	return doctor.Finding{Status: doctor.Warning, Text: "not looked at", Remedy: "run as root"}
}

func (s *survey) configuration(context.Context) doctor.Finding {
	file := s.report.File
	if file == "" {
		file = "no file of the image"
	}
	if n := len(s.report.Notes); n > 0 {
		first := s.report.Notes[0]
		return doctor.Finding{Status: doctor.Warning, Remedy: "set it where it is accepted; docs/config.md says where",
			Text: fmt.Sprintf("%s; %d settings are not used, the first %s from the %s: %s", file, n, first.Key, first.Source, first.Text)}
	}
	return finding(doctor.OK, "%s", file)
}

func (s *survey) platformCheck(context.Context) doctor.Finding {
	s.walk()
	switch {
	case s.platformErr != nil && s.config.Attestation.TEE == "" && errdefs.IsNotFound(s.platformErr):
		f := blame(s.platformErr)
		f.Status = doctor.Warning // pods that need no key run
		return f
	case s.platformErr != nil:
		return blame(s.platformErr)
	case s.platform.Kind() == evidence.Sample:
		return doctor.Finding{Status: doctor.Warning, Text: "sample: proves nothing", Remedy: "leave attestation.tee out of the image's file"}
	}
	return finding(doctor.OK, "%s", s.platform.Kind())
}

func (s *survey) driver(context.Context) doctor.Finding {
	if !root() {
		return rootNeeded()
	}
	s.walk()
	switch {
	case s.platform == nil:
		return finding(doctor.OK, "no platform to ask")
	case s.answers():
		return finding(doctor.OK, "answers the challenge of a key broker alone: coffer-agent attest --kbs asks it; debug unknown: the verifier alone can tell")
	case s.collectErr != nil:
		return blame(s.collectErr)
	}
	text := fmt.Sprintf("%d bytes of evidence in %d ms", len(s.evidence.Data), s.took.Milliseconds())
	fields, err := tee.Decode(s.evidence)
	if err != nil {
		return blame(err)
	}
	f := finding(doctor.OK, "%s", text)
	for _, x := range fields {
		switch {
		case x.Name == "debug" && x.Value == "true":
			return doctor.Finding{Status: doctor.Warning, Text: text + "; the host can read this guest: it was launched with debug", Remedy: "launch the guest without debug"}
		case x.Name == tee.FieldCertificates && x.Value == tee.NoCertificates:
			f = doctor.Finding{Status: doctor.Warning, Text: text + ", without certificates", Remedy: evidence.EndorsementCertificates.Meaning().Remedy}
		}
	}
	return f
}

func (s *survey) initdata(context.Context) doctor.Finding {
	if !root() {
		return rootNeeded()
	}
	s.walk()
	anchored := s.binding().Bound()
	unbound := !anchored && s.config.Attestation.AllowUnbound
	name := "none"
	if s.document != nil {
		name = s.document.Algorithm + " " + hex.EncodeToString(s.document.Digest())
	}
	switch {
	case s.initdataErr != nil:
		return blame(s.initdataErr)
	case unbound:
		return doctor.Finding{Status: doctor.Warning, Remedy: "for laptops and CI alone: leave attestation.allow_unbound_initdata out of other images",
			Text: name + "; unbound: no hardware vouches for it, and the image accepts that"}
	case s.document == nil && anchored:
		return finding(doctor.OK, "none, and the guest was launched without")
	case s.document == nil:
		return finding(doctor.OK, "none; no hardware here could vouch for one")
	}
	return finding(doctor.OK, "%s, bound to the hardware", name)
}

func (s *survey) policy(ctx context.Context) doctor.Finding {
	s.walk()
	source, text := s.config.Policy.File, ""
	if s.document != nil {
		text = s.document.Data[keyPolicy]
	}
	engine := policy.New()
	if text != "" {
		source = keyPolicy + " of the initdata"
		if err := engine.Replace(ctx, text); err != nil {
			return doctor.Finding{Status: doctor.Fault, Text: source + ": " + err.Error(), Remedy: "correct the policy; docs/policy.md"}
		}
		return finding(doctor.OK, "%s", source)
	}
	if _, err := os.Stat(source); errors.Is(err, os.ErrNotExist) {
		return doctor.Finding{Status: doctor.Warning, Text: "none: every call of the host is denied", Remedy: "put one into the initdata, or into " + source}
	}
	if err := s.loadPolicy(ctx, engine, source); err != nil {
		return doctor.Finding{Status: doctor.Fault, Text: err.Error(), Remedy: "correct the policy; docs/policy.md"}
	}
	return finding(doctor.OK, "%s", source)
}

func (s *survey) broker(ctx context.Context) doctor.Finding {
	s.walk()
	keeper, verifier, at := s.config.Broker(), s.config.Verifier(), s.config.Attestation
	if keeper.URL == "" {
		return finding(doctor.OK, "none is configured: pods that need a key are refused")
	}
	out := doctor.Reach(doctor.Target{URL: keeper.URL, Roots: []string{keeper.Cert}, Pin: at.PinCert, Via: kbs.Proxy(at.Proxy).Via}).Look(ctx)
	if out.Status == doctor.Fault || verifier.URL == "" || verifier.URL == keeper.URL {
		return out
	}
	second := doctor.Reach(doctor.Target{URL: verifier.URL, Roots: []string{verifier.Cert}, Pin: at.PinCert, Via: kbs.Proxy(at.Proxy).Via}).Look(ctx)
	return worse(out, second)
}

// worse is one finding of two, with both texts.
func worse(a, b doctor.Finding) doctor.Finding {
	text := a.Text + "; " + b.Text
	if doctor.Worst([]doctor.Finding{a, b}) != a.Status {
		a = b
	}
	a.Text = text
	return a
}

func (s *survey) registries(ctx context.Context, named string) doctor.Finding {
	s.walk()
	i := s.config.Image
	hosts := map[string]string{} // scheme by host
	if named != "" {
		hosts[named] = "https"
	}
	add := func(location string, insecure bool) {
		host, _, _ := strings.Cut(location, "/")
		if hosts[host] = "https"; insecure {
			hosts[host] = "http"
		}
	}
	for _, r := range i.Registries.Registry {
		if r.Location != "" && !r.Blocked {
			add(r.Location, r.Insecure)
		}
		for _, m := range r.Mirrors {
			add(m.Location, m.Insecure)
		}
	}
	if len(hosts) == 0 {
		return finding(doctor.OK, "none is configured; --registry looks for one")
	}
	via := func(u *url.URL) (*url.URL, error) { return kbs.Proxy(i.Proxy).Via(u) }
	var out doctor.Finding
	for host, scheme := range hosts {
		f := doctor.Reach(doctor.Target{URL: scheme + "://" + host, Roots: i.ExtraRoots, Via: via}).Look(ctx)
		if out.Text == "" {
			out = f
		} else {
			out = worse(out, f)
		}
	}
	return out
}
