package main

import (
	"encoding/hex"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"github.com/coffer-cc/coffer/agent/network"
	"github.com/coffer-cc/coffer/evidence/devkbs"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/initdata"
	"github.com/coffer-cc/coffer/evidence/measure"
	"github.com/coffer-cc/coffer/evidence/verify"
)

// hardware is a platform that this machine does not have: a kernel interface
// that programs cannot tell from the real one, with a signer behind it.
type hardware struct {
	tsm    *evidencetest.TSM
	trust  verify.Options
	anchor func(digest []byte)   // what the guest is launched with
	debug  func()                // launch as a guest that its host can look into
	files  func(t *testing.T)    // further files of the kernel
	start  func(*exec.Cmd) error // a program on it
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
				g.attestBeside(agent)
				g.wantServing()
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
