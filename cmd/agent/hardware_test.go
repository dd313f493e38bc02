package main

import (
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"github.com/coffer-cc/coffer/agent/network"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/measure"
)

// hardware is a platform that this machine does not have: a kernel interface
// that programs cannot tell from the real one, with a signer behind it.
type hardware struct {
	evidencetest.Platform
	tsm   *evidencetest.TSM
	debug func()                // launch as a guest that its host can look into
	files func(t *testing.T)    // further files of the kernel
	start func(*exec.Cmd) error // a program on it
}

var measured = [48]byte{0xc0, 0xff, 0xe5}

func hardwareOf(p evidencetest.Platform, debug *bool) *hardware {
	return &hardware{
		Platform: p,
		tsm:      &evidencetest.TSM{Provider: p.Provider(), Sign: p.Sign},
		debug:    func() { *debug = true },
		files:    func(*testing.T) {},
		start:    (*exec.Cmd).Start,
	}
}

func snpHardware(t *testing.T) *hardware { return snpLaunch(evidencetest.NewSNP(t)) }

func snpLaunch(p *evidencetest.SNP) *hardware { return hardwareOf(p, &p.Debug) }

func tdxHardware(t *testing.T) *hardware { return tdxLaunch(t, evidencetest.NewTDX(t)) }

func tdxLaunch(t *testing.T, p *evidencetest.TDX) *hardware {
	area := evidencetest.Fixture(t, "eventlog/ccel_data.dat.gz")
	events, _, err := measure.CCEL(area)
	if err != nil {
		t.Fatal(err)
	}
	if p.RTMR, err = measure.Replay(events); err != nil {
		t.Fatal(err)
	}
	hw := hardwareOf(p, &p.Debug)
	hw.files = func(t *testing.T) {
		evidencetest.PutFiles(t, "/sys/firmware", map[string][]byte{"acpi/tables/data/CCEL": area})
		evidencetest.PutFiles(t, "/sys/devices/virtual/misc", map[string][]byte{"tdx_guest/measurements/mrconfigid": p.MRConfigID[:]})
	}
	return hw
}

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
				if code, body := g.secret(); code != http.StatusOK || body != evidencetest.OwnerText {
					t.Errorf("the key: %d %q", code, body)
				}
				if code, body := g.secretOf(evidencetest.OtherKey); code == http.StatusOK || !strings.Contains(body, "denied by the key broker") {
					t.Errorf("a key for another measurement: %d %q", code, body)
				}
				g.attestBeside(agent)
				g.wantServing()
				if n := g.hw.tsm.Entries(); n != 0 {
					t.Errorf("%d report entries are left behind", n)
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
}

func same(digest []byte) []byte { return digest }

func bootOn(t *testing.T, agent string, hw *hardware, l launch) *machineOf {
	t.Helper()
	owner := evidencetest.NewOwner(t, hw.Trust(), measured)
	text, digest := evidencetest.Document(t, owner.URL)
	var anchor []byte
	if l.anchor != nil {
		anchor = l.anchor(digest)
	}
	hw.Launch(measured, anchor)
	disks := map[string]string{}
	if l.disk {
		disks["vdx"] = text
	}
	coverDev(t, disks)
	evidencetest.MountTSM(t, hw.tsm)
	hw.files(t)
	m := startAgent(t, agent, hw)
	m.broker = owner.KBS
	return m
}
