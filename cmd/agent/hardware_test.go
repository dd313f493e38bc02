package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/coffer-cc/coffer/agent/network"
	"github.com/coffer-cc/coffer/evidence/devkbs"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/initdata"
	"github.com/coffer-cc/coffer/evidence/measure"
	"github.com/coffer-cc/coffer/evidence/verify"
	"github.com/coffer-cc/coffer/protos/agentpb"
	"github.com/coffer-cc/coffer/rpc/socket"
)

// hardware is a platform that this machine does not have: a kernel interface
// that programs cannot tell from the real one, with a signer behind it.
type hardware struct {
	tsm    *evidencetest.TSM
	trust  verify.Options
	anchor func(digest []byte) // what the guest is launched with
	debug  func()              // launch as a guest that its host can look into
	files  func(t *testing.T)  // further files of the kernel
	start  func(*exec.Cmd) error
}

var measured = [48]byte{0xc0, 0xff, 0xe5}

func snpHardware(t *testing.T) *hardware { return snpLaunch(evidencetest.NewSNP(t)) }

func snpLaunch(p *evidencetest.SNP) *hardware {
	p.Measurement = measured
	root, between := p.Roots()
	return &hardware{
		tsm:    &evidencetest.TSM{Provider: "sev_guest", Sign: p.Sign},
		trust:  verify.Options{SNPRoots: []verify.SNPChain{{Product: "Milan", Kind: "VCEK", Root: root, Between: between}}},
		anchor: func(digest []byte) { p.HostData = [32]byte(initdata.Pad(digest, 32)) },
		debug:  func() { p.Debug = true },
		files:  func(*testing.T) {},
		start:  (*exec.Cmd).Start,
	}
}

func tdxHardware(t *testing.T) *hardware { return tdxLaunch(t, evidencetest.NewTDX(t)) }

func tdxLaunch(t *testing.T, p *evidencetest.TDX) *hardware {
	p.MRTD = measured
	area := evidencetest.Fixture(t, "eventlog/ccel_data.dat.gz")
	events, _, err := measure.CCEL(area)
	if err != nil {
		t.Fatal(err)
	}
	if p.RTMR, err = measure.Replay(events); err != nil {
		t.Fatal(err)
	}
	return &hardware{
		tsm:    &evidencetest.TSM{Provider: "tdx_guest", Sign: p.Sign},
		trust:  verify.Options{TDXRoots: p.Roots()},
		anchor: func(digest []byte) { p.MRConfigID = [48]byte(initdata.Pad(digest, 48)) },
		debug:  func() { p.Debug = true },
		files: func(t *testing.T) {
			evidencetest.PutFiles(t, "/sys/firmware", map[string][]byte{"acpi/tables/data/CCEL": area})
			evidencetest.PutFiles(t, "/sys/devices/virtual/misc", map[string][]byte{"tdx_guest/measurements/mrconfigid": p.MRConfigID[:]})
		},
		start: (*exec.Cmd).Start,
	}
}

const hardwareKey = "a key of the owner"

// TestHardware runs the agent as it ships in a guest of each platform. It gets
// a key with the document that it was launched with, and does not start with
// another one, with none, or when it was launched without one.
func TestHardware(t *testing.T) {
	if !inGuest(t) {
		return
	}
	stack, err := network.Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer stack.Close()
	if err := stack.LoopbackUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	agent := buildAgent(t)
	for name, open := range map[string]func(*testing.T) *hardware{
		"snp": snpHardware, "tdx": tdxHardware, "snp by ioctl": snpByIoctl, "tdx by ioctl": tdxByIoctl,
	} {
		t.Run(name, func(t *testing.T) {
			t.Run("own document", func(t *testing.T) {
				g := bootOn(t, agent, open(t), launch{disk: true, anchor: same})
				g.wantServing()
				if code, body := g.secret(); code != http.StatusOK || body != hardwareKey {
					t.Errorf("the key: %d %q", code, body)
				}
				if n := g.hw.tsm.Entries(); n != 0 {
					t.Errorf("%d report entries are left behind", n)
				}
			})
			t.Run("measurement that the owner does not want", func(t *testing.T) {
				g := bootOn(t, agent, open(t), launch{disk: true, anchor: same, demand: [48]byte{1}})
				g.wantServing()
				if code, body := g.secret(); code == http.StatusOK || !strings.Contains(body, "denied by the key broker") {
					t.Errorf("the key: %d %q", code, body)
				}
			})
			t.Run("debug guest", func(t *testing.T) {
				hw := open(t)
				hw.debug()
				g := bootOn(t, agent, hw, launch{disk: true, anchor: same})
				g.wantServing()
				if code, body := g.secret(); code == http.StatusOK || !strings.Contains(body, "denied by the key broker") {
					t.Errorf("the key: %d %q", code, body)
				}
			})
			t.Run("many attestations", func(t *testing.T) {
				bootOn(t, agent, open(t), launch{disk: true, anchor: same}).leaksNothing()
			})
			t.Run("no document", func(t *testing.T) {
				bootOn(t, agent, open(t), launch{}).wantServing()
			})
			for what, c := range map[string]struct {
				launch
				fault string
			}{
				"other document":     {launch{disk: true, anchor: func([]byte) []byte { return []byte{1} }}, "not its own"},
				"launched without":   {launch{disk: true}, "launched without initdata"},
				"document kept back": {launch{anchor: same}, "no disk carries initdata"},
			} {
				t.Run(what, func(t *testing.T) { bootOn(t, agent, open(t), c.launch).wantRefused(c.fault) })
			}
		})
	}
}

// launch is how the host starts a guest.
type launch struct {
	disk   bool                       // attach the document
	anchor func(digest []byte) []byte // what to launch with, nil for zeros
	demand [48]byte                   // measurement that the broker wants, zero for the right one
}

func same(digest []byte) []byte { return digest }

// machineOf is an agent that runs.
type machineOf struct {
	t       *testing.T
	hw      *hardware
	broker  *evidencetest.KBS // nil without one
	address string
	process *os.Process
	log     *bytes.Buffer // to be read when it has ended
	done    chan error
}

func bootOn(t *testing.T, agent string, hw *hardware, l launch) *machineOf {
	t.Helper()
	if l.demand == ([48]byte{}) {
		l.demand = measured
	}
	rules, err := devkbs.ParseRules(fmt.Appendf(nil, "[[resource]]\npath = \"*/*/*\"\nmeasurement = [%q]\n", hex.EncodeToString(l.demand[:])))
	if err != nil {
		t.Fatal(err)
	}
	broker := evidencetest.NewKBS(t, devkbs.Options{
		Resources: evidencetest.Resources(map[string]string{"default/key/1": hardwareKey}),
		Rules:     rules, Verify: hw.trust, Issuer: "owner",
	})
	text := fmt.Sprintf("version = \"0.1.0\"\nalgorithm = \"sha384\"\n[data]\n\"aa.toml\" = '''\n[token_configs.kbs]\nurl = %q\n'''\n", broker.URL)
	digest, err := initdata.Digest("sha384", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if l.anchor != nil {
		hw.anchor(l.anchor(digest))
	}
	disks := map[string]string{}
	if l.disk {
		disks["vdx"] = text
	}
	coverDev(t, disks)
	evidencetest.MountTSM(t, hw.tsm)
	hw.files(t)
	m := startAgent(t, agent, hw)
	m.broker = broker
	return m
}

// startAgent runs the agent with further lines of its configuration.
func startAgent(t *testing.T, agent string, hw *hardware, more ...string) *machineOf {
	t.Helper()
	dir := t.TempDir()
	m := &machineOf{t: t, hw: hw, address: filepath.Join(dir, "agent.sock"), log: &bytes.Buffer{}, done: make(chan error, 1)}
	config := filepath.Join(dir, "agent.toml")
	settings := fmt.Sprintf("server_addr = \"unix://%s\"\nguest_components_procs = \"api-server-rest\"\n", m.address) + strings.Join(more, "\n")
	if err := os.WriteFile(config, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(agent, "--config", config)
	cmd.Env = []string{}
	cmd.Stdout, cmd.Stderr = m.log, m.log
	if err := hw.start(cmd); err != nil {
		t.Fatal(err)
	}
	m.process = cmd.Process
	go func() { m.done <- cmd.Wait() }()
	t.Cleanup(func() {
		if said := m.end(); t.Failed() {
			t.Logf("the agent said:\n%s", said)
		}
	})
	return m
}

// end ends the agent and returns what it said.
func (m *machineOf) end() string {
	if err := m.process.Signal(unix.SIGTERM); err == nil {
		err = <-m.done
		m.done <- err
	} else if !errors.Is(err, os.ErrProcessDone) {
		m.t.Error(err)
	}
	return m.log.String()
}

// check asks for health as a shim does, until there is an answer.
func (m *machineOf) check() error {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	for {
		conn, err := socket.Dial(ctx, "unix://"+m.address)
		if err == nil {
			client := ttrpc.NewClient(conn)
			defer client.Close()
			_, err = agentpb.NewHealthClient(client).Check(ctx, &agentpb.CheckRequest{})
			return err
		}
		select {
		case <-ctx.Done():
			m.t.Fatalf("nobody listens: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (m *machineOf) wantServing() {
	m.t.Helper()
	if err := m.check(); err != nil {
		m.t.Fatal(err)
	}
}

// wantRefused sees the reason in the answer to the host and at the end.
func (m *machineOf) wantRefused(fault string) {
	m.t.Helper()
	if err := m.check(); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), fault) {
		m.t.Errorf("health: %v, want %q", err, fault)
	}
	err := <-m.done
	m.done <- err
	if err == nil || !strings.Contains(m.log.String(), fault) {
		m.t.Errorf("the agent ended with %v", err)
	}
}

// leaksNothing has the broker reject each session once, so that each key takes
// an attestation of its own, and compares what the agent has open before and
// after fifty.
func (m *machineOf) leaksNothing() {
	m.t.Helper()
	m.wantServing()
	var asked atomic.Int64
	m.broker.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		reject := strings.Contains(r.URL.Path, "/resource/") && asked.Add(1)%2 == 1
		if reject {
			http.Error(w, `{"type":"https://github.com/confidential-containers/kbs/errors/TokenNotFound"}`, http.StatusUnauthorized)
		}
		return reject
	})
	attest := func(n int) {
		m.t.Helper()
		for range n {
			if code, body := m.secret(); code != http.StatusOK {
				m.t.Fatalf("the key: %d %q", code, body)
			}
		}
	}
	attest(5)
	before, attested := m.openFiles(), m.broker.Count("attest")
	attest(50)
	if n := m.broker.Count("attest") - attested; n != 50 {
		m.t.Errorf("%d attestations", n)
	}
	after := m.openFiles()
	for end := time.Now().Add(10 * time.Second); len(after) > len(before) && time.Now().Before(end); after = m.openFiles() {
		time.Sleep(10 * time.Millisecond) // the far side of a connection may close later
	}
	if len(after) > len(before) || m.hw.tsm.Entries() != 0 {
		m.t.Errorf("open before\n%s\nafter\n%s\nand %d report entries", strings.Join(before, "\n"), strings.Join(after, "\n"), m.hw.tsm.Entries())
	}
}

// openFiles lists what the agent has open, and its children.
func (m *machineOf) openFiles() (names []string) {
	m.t.Helper()
	list := func(pattern string, add func(path string)) {
		m.t.Helper()
		paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/%s", m.process.Pid, pattern))
		if err != nil || len(paths) == 0 {
			m.t.Fatalf("list %s of the agent: %v", pattern, err)
		}
		for _, path := range paths {
			add(path)
		}
	}
	list("fd/*", func(path string) {
		if link, err := os.Readlink(path); err == nil { // else closed by now
			names = append(names, link)
		}
	})
	list("task/*/children", func(path string) {
		if text, err := os.ReadFile(path); err == nil && len(text) > 0 {
			names = append(names, "child "+string(text))
		}
	})
	return names
}

// secret asks for a key as a workload does.
func (m *machineOf) secret() (int, string) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	code, body, err := m.askSecret(ctx)
	if err != nil {
		m.t.Fatal(err)
	}
	return code, body
}

func (m *machineOf) askSecret(ctx context.Context) (code int, body string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:8006/cdh/resource/default/key/1", nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}
