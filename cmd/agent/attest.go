package main

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/coffer-cc/coffer/agent/config"
	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/broker"
	"github.com/coffer-cc/coffer/evidence/explain"
	"github.com/coffer-cc/coffer/evidence/resource"
	"github.com/coffer-cc/coffer/evidence/tee"
)

const attestUsage = `coffer-agent attest [flags] [kbs:///REPOSITORY/TYPE/TAG]

Shows what this guest proves and to whom. Without flags it prints evidence as
key brokers read it. With --kbs it attests to a broker; with a resource it also
fetches that, and tells its size and digest and never its content. It may run
beside the service and changes nothing.

      --nonce HEX       at most 64 bytes that the evidence is bound to: they are the
                        report data, with zeros behind; 32 random ones without it
      --kbs URL         attest to this broker; "config" is the configured one
      --kbs-cert FILE   PEM certificates to trust for it besides
      --tee NAME        the platform instead of the configured one
      --decode          print what the evidence says; debug, TCB and SMT among it
      --explain         print each leg with its time, and the remedy of a fault
  -o, --output FORMAT   text or json
      --timeout TIME    end after this time, one minute by default
  -c, --config FILE     settings instead of those that the service reads
  -h, --help            print this

Exit codes: 0 success, 1 another failure, 2 wrong usage, and the leg of a fault:
10 platform, 11 initdata, 12 driver, 13 endorsement, 14 transport, 15 verdict,
16 policy, 17 resource. The codes of faults stand in docs/attestation.md.
`

// configuredBroker stands in --kbs for the one of the settings.
const configuredBroker = "config"

// attestFlags is the command line of the role.
type attestFlags struct {
	nonce, kbs, cert, tee string
	decode, explain       bool
}

// attestRole is one life of coffer-agent attest.
func attestRole(args []string, out, errs io.Writer) int {
	o := &oneShot{process: &process{onlooker: true}, name: "attest", out: out, err: errs}
	var f attestFlags
	flags := o.flags(time.Minute)
	flags.StringVar(&f.nonce, "nonce", "", "")
	flags.StringVar(&f.kbs, "kbs", "", "")
	flags.StringVar(&f.cert, "kbs-cert", "", "")
	flags.StringVar(&f.tee, "tee", "", "")
	flags.BoolVar(&f.decode, "decode", false, "")
	flags.BoolVar(&f.explain, "explain", false, "")
	rest, code, done := o.parse(flags, args, attestUsage)
	if done {
		return code
	}
	plan, err := o.plan(f, rest)
	if err != nil {
		return o.misused("%v", err)
	}
	if !root() {
		o.tell("must be root: devices and configfs of the platform are root's alone")
		return 1
	}
	ctx, end, err := o.begin()
	if err == nil {
		defer end()
		err = o.override(f)
	}
	if err != nil {
		o.tell(err.Error())
		return 1
	}
	r := explain.Run(ctx, plan)
	o.show(f, plan, r)
	return explain.ExitCode(r.Err())
}

// plan turns the command line into what is to be done.
func (o *oneShot) plan(f attestFlags, rest []string) (explain.Plan, error) {
	p := explain.Plan{Platform: o.platformOrNone, Initdata: o.boundInitdata, Mark: o.markUnbound}
	if len(rest) > 1 {
		return p, fmt.Errorf("more than one resource")
	}
	if len(rest) == 1 {
		u, err := resource.Parse(rest[0])
		if err != nil {
			return p, err
		}
		p.Resource = &u
	}
	if f.kbs != "" || p.Resource != nil {
		p.Broker = o.openBroker
	}
	if f.cert != "" && (f.kbs == "" || f.kbs == configuredBroker) {
		return p, fmt.Errorf("--kbs-cert goes with a URL in --kbs")
	}
	nonce, err := hex.DecodeString(f.nonce)
	if err != nil {
		return p, fmt.Errorf("--nonce is not hexadecimal")
	}
	if f.nonce == "" {
		nonce = make([]byte, 32)
		_, _ = rand.Read(nonce) // never fails
	}
	p.Data, err = evidence.NewReportData(nonce)
	return p, err
}

// override reads the settings and puts the flags over them. Initdata, which is
// adopted later, must not undo that, so openBroker looks at them again.
func (o *oneShot) override(f attestFlags) error {
	if err := o.settings(); err != nil {
		return err
	}
	if f.tee != "" {
		o.config.Attestation.TEE = f.tee
	}
	if f.kbs == "" || f.kbs == configuredBroker {
		return nil
	}
	o.broker = &config.Endpoint{URL: f.kbs}
	if f.cert != "" {
		text, err := os.ReadFile(f.cert)
		if err != nil {
			return fmt.Errorf("--kbs-cert: %w", err)
		}
		if !x509.NewCertPool().AppendCertsFromPEM(text) {
			return fmt.Errorf("--kbs-cert: %s holds no certificate in PEM", f.cert)
		}
		o.broker.Cert = string(text)
	}
	return nil
}

// platformOrNone is a platform, or the fault that there is none, which the
// service would live with.
func (o *oneShot) platformOrNone(context.Context) (c evidence.Collector, err error) {
	o.platform, err = tee.Select(o.config.Attestation.TEE, o.drivers())
	return o.platform, err
}

// boundInitdata adopts the document as the service does.
func (o *oneShot) boundInitdata(ctx context.Context, _ evidence.Collector) (string, error) {
	err := o.adoptDocument(ctx)
	switch {
	case err != nil:
		return "", err
	case o.document == nil:
		return "none", nil
	case !o.bound:
		return o.document.Algorithm + " " + hex.EncodeToString(o.document.Digest()) + ", not bound to hardware", nil
	}
	return o.document.Algorithm + " " + hex.EncodeToString(o.document.Digest()) + ", bound to the hardware", nil
}

// markUnbound has the evidence say what that of the service says.
func (o *oneShot) markUnbound(e evidence.Evidence) (evidence.Evidence, error) {
	if o.document == nil || o.bound {
		return e, nil
	}
	return e.Unbound()
}

func (o *oneShot) openBroker(c evidence.Collector, observe func(string, time.Duration)) (broker.Broker, error) {
	settings, err := o.brokerConfig()
	if err != nil {
		return nil, err
	}
	if o.broker != nil {
		if o.broker.Cert == "" {
			o.broker.Cert = settings.Cert
		}
		settings.URL, settings.Cert = o.broker.URL, o.broker.Cert
		settings.AttestURL, settings.AttestCert = "", ""
	}
	settings.Observe = observe
	return broker.Open(settings, c)
}

// attested is the JSON form of what was seen.
type attested struct {
	Result     string            `json:"result"` // ok or fault
	Code       evidence.Code     `json:"code,omitempty"`
	Platform   evidence.Kind     `json:"platform,omitempty"`
	ReportData string            `json:"report_data,omitempty"`
	Evidence   json.RawMessage   `json:"evidence,omitempty"`
	Fields     map[string]string `json:"fields,omitempty"`
	Resource   *explain.Secret   `json:"resource,omitempty"`
	Legs       []leg             `json:"legs"`
}

// leg is the JSON form of a step.
type leg struct {
	Leg    evidence.Leg   `json:"leg"`
	Status explain.Status `json:"status"`
	Millis float64        `json:"ms"`
	Code   evidence.Code  `json:"code,omitempty"`
	Text   string         `json:"text,omitempty"`
	Remedy string         `json:"remedy,omitempty"`
}

func legsOf(steps []explain.Step) (out []leg) {
	for _, s := range steps {
		l := leg{Leg: s.Leg, Status: s.Status, Millis: float64(s.Took.Microseconds()) / 1000, Code: s.Code, Text: s.Text}
		if s.Code != "" {
			l.Remedy = s.Code.Meaning().Remedy
		}
		out = append(out, l)
	}
	return out
}

// show prints what the flags ask for.
func (o *oneShot) show(f attestFlags, p explain.Plan, r *explain.Result) {
	var fields []tee.Field
	collected, handshake := r.Evidence.Data != nil, p.Broker != nil
	if f.decode && collected {
		var err error
		if fields, err = tee.Decode(r.Evidence); err != nil {
			o.tell(err.Error())
		}
	}
	if o.output == "json" {
		o.showJSON(p, r, fields)
		return
	}
	for _, x := range fields {
		fmt.Fprintf(o.out, "%-16s %s\n", x.Name, printable(x.Value))
	}
	if collected && !handshake && !f.decode && !f.explain {
		fmt.Fprintf(o.out, "%s\n", r.Evidence.Data)
	}
	if f.explain {
		if len(fields) > 0 {
			fmt.Fprintln(o.out)
		}
		o.explain(r.Steps)
	}
	if s := r.Secret; s != nil {
		fmt.Fprintf(o.out, "%s: %d bytes, sha256 %s\n", s.URI, s.Size, s.SHA256)
	} else if handshake && r.Err() == nil {
		fmt.Fprintf(o.out, "the broker accepts this guest as %s\n", r.Evidence.Kind)
	}
	if err := r.Err(); err != nil {
		o.tell(strings.TrimPrefix(err.Error(), "attest: "))
		if remedy := evidence.CodeOf(err).Meaning().Remedy; remedy != "" {
			o.tell("remedy: " + remedy)
		}
	}
}

func (o *oneShot) showJSON(p explain.Plan, r *explain.Result, fields []tee.Field) {
	out := attested{Result: "ok", Platform: r.Evidence.Kind, Resource: r.Secret, Legs: legsOf(r.Steps)}
	if err := r.Err(); err != nil {
		out.Result, out.Code = "fault", evidence.CodeOf(err)
	}
	if r.Evidence.Data != nil && p.Broker == nil {
		data := p.Data.Padded()
		out.Evidence, out.ReportData = r.Evidence.Data, hex.EncodeToString(data[:])
	}
	for _, x := range fields {
		if out.Fields == nil {
			out.Fields = map[string]string{}
		}
		out.Fields[x.Name] = x.Value
	}
	o.json(out)
}

// explain prints the legs, and below each fault how to mend it.
func (o *oneShot) explain(steps []explain.Step) {
	rows := [][]string{{"LEG", "STATUS", "MS", "CODE", ""}}
	for _, l := range legsOf(steps) {
		rows = append(rows, []string{string(l.Leg), string(l.Status), strconv.FormatFloat(l.Millis, 'f', 1, 64), string(l.Code), l.Text})
		if l.Remedy != "" {
			rows = append(rows, []string{"", "", "", "remedy:", l.Remedy})
		}
	}
	o.table(rows)
}
