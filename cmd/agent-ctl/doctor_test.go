package main

import (
	"context"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/coffer-cc/coffer/protos/agentpb"
	"github.com/coffer-cc/coffer/rpc/socket"
)

// examined is the JSON form of the doctor's findings, written down a second time.
type examined struct {
	Address, Status string
	Checks          []struct{ Check, Status, Text, Remedy string }
}

func examine(t *testing.T, addr string) (examined, result) {
	t.Helper()
	r := ctl(t, nil, "--address", addr, "-o", "json", "doctor")
	var e examined
	if err := json.Unmarshal([]byte(r.out), &e); err != nil {
		t.Fatalf("%v in %+v", err, r)
	}
	return e, r
}

func (e examined) find(check string) string {
	for _, c := range e.Checks {
		if c.Check == check {
			return c.Status + ": " + c.Text + " | " + c.Remedy
		}
	}
	return "not looked at"
}

func TestDoctor(t *testing.T) {
	f, addr := serve(t)
	e, r := examine(t, addr)
	var names []string
	for _, c := range e.Checks {
		names = append(names, c.Check)
	}
	want := []string{"health", "version", "details", "initdata", "attestation", "clock", "agent"}
	if r.code != 0 || e.Address != addr || e.Status != "warning" || !slices.Equal(names, want) {
		t.Errorf("%+v", r)
	}
	for check, said := range map[string]string{
		"health": "ok: SERVING after", "version": "warning: agent 9.9.9, this program", "details": "ok: local image_guest_pull",
		"initdata": "ok: none", "attestation": "ok: nothing has asked", "clock": "ok: the agent follows no clock",
	} {
		if got := e.find(check); !strings.HasPrefix(got, said) {
			t.Errorf("%s: %q, want %q", check, got, said)
		}
	}
	f.mu.Lock()
	f.metrics = "coffer_initdata_bound 0\ncoffer_attestation_phases_total{phase=\"attest\"} 2\n" +
		"coffer_attestation_faults_total{leg=\"transport\",code=\"transport/dns\"} 3\ncoffer_attestation_faults_total{leg=\"policy\",code=\"policy/denied\"} 1\n" +
		"coffer_clock_offset_seconds{source=\"ptp_kvm\"} 9.5\ncoffer_config_ignored_keys 2\n"
	f.mu.Unlock()
	e, r = examine(t, addr)
	for check, said := range map[string]string{
		"initdata":    "warning: unbound",
		"attestation": "warning: 2 succeeded; faults: transport/dns 3, policy/denied 1 | look at the guest's /etc/resolv.conf",
		"clock":       "warning: host is +9.500 s ahead by ptp_kvm | ",
		"agent":       "warning: 0 calls in flight, 2 settings of the host ignored",
	} {
		if got := e.find(check); !strings.HasPrefix(got, said) || r.code != 0 {
			t.Errorf("%s: %q, want %q", check, got, said)
		}
	}
}

func TestDoctorUnderPolicy(t *testing.T) {
	f, addr := serve(t)
	f.denied["GuestDetailsRequest"], f.denied["GetMetricsRequest"] = true, true
	e, r := examine(t, addr)
	for _, check := range []string{"details", "metrics"} {
		if got := e.find(check); r.code != 0 || !strings.HasPrefix(got, "warning: ") || !strings.Contains(got, "is blocked by policy") || strings.Contains(got, "\x1b") {
			t.Errorf("%s: %q", check, got)
		}
	}
}

// TestDoctorOfARefusal meets a guest that must not start.
func TestDoctorOfARefusal(t *testing.T) {
	addr := "unix://" + filepath.Join(t.TempDir(), "agent.sock")
	l, err := socket.Listen(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	srv, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	srv.RegisterService("grpc.Health", &ttrpc.ServiceDesc{Methods: map[string]ttrpc.Method{
		"Check": func(_ context.Context, unmarshal func(any) error) (any, error) {
			if err := unmarshal(&agentpb.CheckRequest{}); err != nil {
				return nil, err
			}
			return nil, status.Error(codes.FailedPrecondition, "initdata/refused: initdata on /dev/vda: it is another document")
		},
	}})
	go srv.Serve(context.Background(), l)
	t.Cleanup(func() { srv.Close() })
	e, r := examine(t, addr)
	if got := e.find("health"); r.code != 1 || e.Status != "fault" || !strings.HasPrefix(got, "fault: the guest refuses to start: ") || !strings.Contains(got, "agent-ctl initdata show") {
		t.Errorf("%d %q", r.code, got)
	}
}

func TestDoctorOfNobody(t *testing.T) {
	e, r := examine(t, "unix:///nowhere/a.sock")
	if got := e.find("reach"); r.code != exitUnreachable || e.Status != "fault" || !strings.HasPrefix(got, "fault: connect to") {
		t.Errorf("%d %q", r.code, got)
	}
	if r := ctl(t, nil, "--address", "tcp://x:1", "doctor"); r.code != exitUsage {
		t.Errorf("%+v", r)
	}
}
