package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/protos/agentpb"
)

// Status of a finding, in the words of coffer-agent doctor.
const (
	statusOK      = "ok"
	statusWarning = "warning"
	statusFault   = "fault"
)

// ctlFinding is what one check from the host saw, in the shape of coffer-agent
// doctor.
type ctlFinding struct {
	Check  string `json:"check"`
	Status string `json:"status"`
	Text   string `json:"text"`
	Remedy string `json:"remedy,omitempty"`
}

// Families of the agent's metrics that the doctor reads.
const (
	boundFamily  = "coffer_initdata_bound"
	phasesFamily = "coffer_attestation_phases_total"
	faultsFamily = "coffer_attestation_faults_total"
	offsetFamily = "coffer_clock_offset_seconds"
	raisedFamily = "coffer_clock_raised"
	keysFamily   = "coffer_config_ignored_keys"
	linesFamily  = "coffer_log_lines_dropped"
	flightFamily = "coffer_calls_in_flight"
)

// maxOffset is how far clocks may be apart: brokers and registries give no more
// than some minutes.
const maxOffset = 5.0 // seconds

func (a *app) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Look at an agent from the host: reach, health, policy, attestation, clock",
		Long: "Look at an agent from the host: whether it is reached and serves, what it lets the\n" +
			"host see, whether attestation succeeds, and how far its clock is off. What only\n" +
			"the guest can see, coffer-agent doctor tells in there. Exit code 1 means a fault,\n" +
			"5 that the agent cannot be reached; warnings end with 0.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.doctor(cmd.Context()) },
	}
}

func (a *app) doctor(ctx context.Context) error {
	findings, err := a.examine(ctx)
	if findings == nil {
		return err
	}
	status := statusOK
	rows := [][]string{{"CHECK", "STATUS", ""}}
	for _, f := range findings {
		if f.Status == statusFault || f.Status == statusWarning && status == statusOK {
			status = f.Status
		}
		rows = append(rows, []string{f.Check, f.Status, f.Text})
		if f.Remedy != "" {
			rows = append(rows, []string{"", "", "remedy: " + f.Remedy})
		}
	}
	shown := map[string]any{"address": a.address, "status": status, "checks": findings}
	if perr := a.print(shown, rows); perr != nil {
		return perr
	}
	if err == nil && status == statusFault {
		err = fmt.Errorf("the agent has a fault")
	}
	return err
}

// examine does the checks in order; what needs the one before it is left out
// when that fails. Without findings the command line was wrong.
func (a *app) examine(ctx context.Context) ([]ctlFinding, error) {
	start := time.Now()
	c, err := a.dial(ctx)
	if exitCode(err) == exitUsage {
		return nil, err
	}
	if err != nil {
		return []ctlFinding{{"reach", statusFault, describe(err), "look whether the guest runs, at its CID or socket file, and whether its agent listens there"}}, err
	}
	defer c.Close()
	health, err := a.health(ctx, c, start)
	out := []ctlFinding{health}
	if err != nil {
		return out, err
	}
	out = append(out, a.agentVersion(ctx, c), a.agentDetails(ctx, c))
	return append(out, a.agentMetrics(ctx, c)...), nil
}

func (a *app) health(ctx context.Context, c *client, start time.Time) (ctlFinding, error) {
	ctx, cancel := c.limit(ctx)
	defer cancel()
	r, err := c.health.Check(ctx, &agentpb.CheckRequest{})
	f := ctlFinding{Check: "health", Status: statusFault}
	switch {
	case code(err) == codes.FailedPrecondition:
		// A guest that must not start says why, with the code of the fault.
		f.Text, f.Remedy = "the guest refuses to start: "+describe(err), remedyIn(err.Error())
	case err != nil:
		f.Text, f.Remedy = describe(err), "look at the guest's console; a hypervisor may accept connections that no agent answers"
	case r.Status != agentpb.HealthCheckResponse_SERVING:
		f.Text, f.Remedy = r.Status.String(), "look at the guest's log"
	default:
		f.Status, f.Text = statusOK, fmt.Sprintf("%s after %d ms", r.Status, time.Since(start).Milliseconds())
	}
	return f, failed("Check", err)
}

// remedyIn finds a code of attestation in a text.
func remedyIn(text string) string {
	for _, m := range evidence.Meanings() {
		if strings.Contains(text, string(m.Code)+": ") {
			return m.Remedy
		}
	}
	return "look at the guest's console"
}

func (a *app) agentVersion(ctx context.Context, c *client) ctlFinding {
	ctx, cancel := c.limit(ctx)
	defer cancel()
	r, err := c.health.Version(ctx, &agentpb.CheckRequest{})
	if err != nil {
		return ctlFinding{"version", statusFault, describe(failed("Version", err)), "look at the guest's log"}
	}
	if r.AgentVersion != version {
		return ctlFinding{"version", statusWarning, "agent " + r.AgentVersion + ", this program " + version, "use the agent-ctl of the agent's release"}
	}
	return ctlFinding{"version", statusOK, r.AgentVersion, ""}
}

func (a *app) agentDetails(ctx context.Context, c *client) ctlFinding {
	ctx, cancel := c.limit(ctx)
	defer cancel()
	d, err := c.agent.GetGuestDetails(ctx, &agentpb.GuestDetailsRequest{})
	switch {
	case code(err) == codes.PermissionDenied:
		return ctlFinding{"details", statusWarning, describe(failed("GetGuestDetails", err)),
			"shims need GetGuestDetails: without any policy everything is denied; docs/policy.md"}
	case err != nil:
		return ctlFinding{"details", statusFault, describe(failed("GetGuestDetails", err)), "look at the guest's log"}
	case !d.GetAgentDetails().GetSupportsSeccomp():
		return ctlFinding{"details", statusWarning, "no seccomp: profiles of containers are refused", "build the agent with the tag seccomp"}
	}
	return ctlFinding{"details", statusOK, strings.Join(d.GetAgentDetails().GetStorageHandlers(), " "), ""}
}

// agentMetrics reads what the agent tells of attestation, clock and itself.
func (a *app) agentMetrics(ctx context.Context, c *client) []ctlFinding {
	ctx, cancel := c.limit(ctx)
	defer cancel()
	r, err := c.agent.GetMetrics(ctx, &agentpb.GetMetricsRequest{})
	switch {
	case code(err) == codes.PermissionDenied:
		return []ctlFinding{{"metrics", statusWarning, describe(failed("GetMetrics", err)), "attestation and clock cannot be seen from here unless the policy allows GetMetrics"}}
	case err != nil:
		return []ctlFinding{{"metrics", statusFault, describe(failed("GetMetrics", err)), "look at the guest's log"}}
	}
	return []ctlFinding{initdataFinding(r.Metrics), attestationFinding(r.Metrics), clockFinding(r.Metrics), settingsFinding(r.Metrics)}
}

func initdataFinding(text string) ctlFinding {
	bound := parseMetrics(text, boundFamily)
	switch {
	case len(bound) == 0:
		return ctlFinding{"initdata", statusOK, "none", ""}
	case bound[0].value == 1:
		return ctlFinding{"initdata", statusOK, "bound to the hardware", ""}
	}
	return ctlFinding{"initdata", statusWarning, "unbound: no hardware vouches for it, and the image accepts that", "for laptops and CI alone: leave attestation.allow_unbound_initdata out of other images"}
}

// attestationFinding names the fault that was seen most.
func attestationFinding(text string) ctlFinding {
	attested := 0.0
	for _, s := range parseMetrics(text, phasesFamily) {
		if s.labels["phase"] == "attest" {
			attested = s.value
		}
	}
	var most sample
	var all []string
	for _, s := range parseMetrics(text, faultsFamily) {
		all = append(all, fmt.Sprintf("%s %.0f", s.labels["code"], s.value))
		if s.value > most.value {
			most = s
		}
	}
	summary := fmt.Sprintf("%.0f succeeded", attested)
	switch {
	case len(all) > 0:
		return ctlFinding{"attestation", statusWarning, summary + "; faults: " + strings.Join(all, ", "),
			evidence.Code(most.labels["code"]).Meaning().Remedy}
	case attested == 0:
		return ctlFinding{"attestation", statusOK, "nothing has asked for a key", ""}
	}
	return ctlFinding{"attestation", statusOK, summary, ""}
}

func clockFinding(text string) ctlFinding {
	for _, s := range parseMetrics(text, raisedFamily) {
		if s.value == 1 {
			return ctlFinding{"clock", statusWarning, "the guest's clock was behind its floor and was raised to it", "look at the host's clock, or give the guest KVM's"}
		}
	}
	offset := parseMetrics(text, offsetFamily)
	if len(offset) == 0 {
		return ctlFinding{"clock", statusOK, "the agent follows no clock of the host", ""}
	}
	said := fmt.Sprintf("host is %+.3f s ahead by %s", offset[0].value, offset[0].labels["source"])
	if offset[0].value > maxOffset || offset[0].value < -maxOffset {
		return ctlFinding{"clock", statusWarning, said, "look at the host's clock: certificates and tokens may count as expired"}
	}
	return ctlFinding{"clock", statusOK, said, ""}
}

func settingsFinding(text string) ctlFinding {
	value := func(family string) float64 {
		if s := parseMetrics(text, family); len(s) > 0 {
			return s[0].value
		}
		return 0
	}
	ignored, dropped := value(keysFamily), value(linesFamily)
	said := fmt.Sprintf("%.0f calls in flight, %.0f settings of the host ignored, %.0f log lines lost", value(flightFamily), ignored, dropped)
	switch {
	case ignored > 0:
		return ctlFinding{"agent", statusWarning, said, "the image alone may set them: look at the guest's log for their names"}
	case dropped > 0:
		return ctlFinding{"agent", statusWarning, said, "read the log port, or log less"}
	}
	return ctlFinding{"agent", statusOK, said, ""}
}
