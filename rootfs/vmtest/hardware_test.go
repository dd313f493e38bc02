package vmtest

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/protos/agentpb"
	"github.com/coffer-cc/coffer/rootfs/vm"
)

// Each interface that a kernel has to confidential hardware, with a platform
// that signs behind it, and a change of it for which its owner gives no key.
var hardware = []struct {
	name                  string
	machine               func(testing.TB) (*evidencetest.Machine, evidencetest.Platform)
	changed, kind, reason string
	change                func(*evidencetest.Machine)
}{
	{"snp by configfs-tsm", func(t testing.TB) (*evidencetest.Machine, evidencetest.Platform) {
		p := evidencetest.NewSNP(t)
		return &evidencetest.Machine{Provider: p.Provider(), SNP: p}, p
	}, "debug guest", "policy/denied", "the guest is a debug guest", func(m *evidencetest.Machine) { m.SNP.Debug = true }},
	{"snp by sev-guest", func(t testing.TB) (*evidencetest.Machine, evidencetest.Platform) {
		p := evidencetest.NewSNP(t)
		return &evidencetest.Machine{SEVGuest: true, SNP: p}, p
	}, "more certificates than fit", "verdict/refused", "no VCEK or VLEK certificate", func(m *evidencetest.Machine) { m.SNP.ExtraCerts = 16 << 10 }},
	{"tdx by configfs-tsm", func(t testing.TB) (*evidencetest.Machine, evidencetest.Platform) {
		p := evidencetest.NewTDX(t)
		return &evidencetest.Machine{Provider: p.Provider(), TDXGuest: true, TDX: p}, p
	}, "debug guest", "policy/denied", "the guest is a debug guest", func(m *evidencetest.Machine) { m.TDX.Debug = true }},
}

var measured = [48]byte{0xc0, 0xff, 0xe5}

// TestHardware boots the agent as it ships on a kernel with each interface. A
// workload gets a key of the owner's who names the guest's measurement, and none
// of one who names another. With another document than that it was launched with
// the guest does not start.
func TestHardware(t *testing.T) {
	ownMachine(t)
	layer := busyboxLayer(t)
	for _, hw := range hardware {
		t.Run(hw.name, func(t *testing.T) {
			t.Run("own document", func(t *testing.T) {
				m, p := hw.machine(t)
				g := bootOn(t, m, p, layer)
				g.wantSecret(t, evidencetest.OwnerKey)
				g.wantNoSecret(t, evidencetest.OtherKey, "policy/denied", "measurement is c0ffe5")
			})
			t.Run(hw.changed, func(t *testing.T) {
				m, p := hw.machine(t)
				hw.change(m)
				bootOn(t, m, p, layer).wantNoSecret(t, evidencetest.OwnerKey, hw.kind, hw.reason)
			})
			t.Run("other document", func(t *testing.T) {
				m, p := hw.machine(t)
				text, _ := evidencetest.Document(t, "http://10.0.2.2:1")
				p.Launch(measured, []byte{1})
				wantRefusedBoot(t, m, text, "not its own")
			})
		})
	}
}

// TestRealm boots on Arm CCA, as far as its interface goes: the token says what the
// guest was launched with, and no broker here can judge it.
func TestRealm(t *testing.T) {
	ownMachine(t)
	p := evidencetest.NewCCA(t)
	m := &evidencetest.Machine{Provider: p.Provider(), CCA: p}
	t.Run("own document", func(t *testing.T) {
		bootOn(t, m, p, busyboxLayer(t)).wantNoSecret(t, evidencetest.OwnerKey, "verdict/refused", `evidence of platform`)
	})
	t.Run("other document", func(t *testing.T) {
		text, _ := evidencetest.Document(t, "http://10.0.2.2:1")
		p.Launch(measured, []byte{1})
		wantRefusedBoot(t, m, text, "not its own")
	})
}

// TestHardwareThatFails has signers that do not answer. Nothing says then what
// the guest was launched with.
func TestHardwareThatFails(t *testing.T) {
	ownMachine(t)
	for i, fail := range []func(*evidencetest.Machine){
		func(m *evidencetest.Machine) { m.Mute = true },
		func(m *evidencetest.Machine) { m.Dies = true },
	} {
		hw := hardware[i+1]
		m, p := hw.machine(t)
		fail(m)
		t.Run(fmt.Sprintf("%s, mute %v, dead %v", hw.name, m.Mute, m.Dies), func(t *testing.T) {
			text, digest := evidencetest.Document(t, "http://10.0.2.2:1")
			p.Launch(measured, digest)
			wantRefusedBoot(t, m, text, map[bool]string{true: "connection timed out", false: "input/output error"}[m.Mute])
		})
	}
}

// wantRefusedBoot sees the reason in one line of the console, and the machine off.
func wantRefusedBoot(t *testing.T, m *evidencetest.Machine, text, fault string) {
	t.Helper()
	c := onPlatform(t, m)
	disks := withDisks(t, initdataDisk(t, text))
	c.Words, c.Disks = disks.Words, disks.Disks
	machine := Start(t, c)
	defer machine.Stop()
	defer showConsole(t, machine)
	waitOff(t, machine)
	said := 0
	for line := range strings.Lines(machine.Console()) {
		if strings.HasPrefix(line, "coffer-agent:") && strings.Contains(line, fault) {
			said++
		}
		if strings.Contains(line, readyText) {
			t.Error("the agent served")
		}
	}
	if said != 1 {
		t.Errorf("the console says %d times %q", said, fault)
	}
}

// secretGuest is a guest on a platform, with what its workloads are made of.
type secretGuest struct {
	*Guest
	owner evidencetest.Owner
	layer sealedLayer
}

const layerSlot = 10

// busyboxLayer is the root of a container as a verified disk: on a platform the
// host shares no directory.
func busyboxLayer(t *testing.T) sealedLayer {
	t.Helper()
	root := t.TempDir()
	makeRoot(t, root)
	return sealLayer(t, root)
}

// bootOn boots a guest with its owner's document, and an owner who trusts the
// platform and nobody else.
func bootOn(t *testing.T, m *evidencetest.Machine, p evidencetest.Platform, layer sealedLayer) secretGuest {
	t.Helper()
	owner := evidencetest.NewOwner(t, p.Trust(), measured)
	text, digest := evidencetest.Document(t, strings.Replace(owner.URL, "127.0.0.1", "10.0.2.2", 1))
	p.Launch(measured, digest)
	c := onPlatform(t, m)
	disks := withDisks(t, initdataDisk(t, text))
	path := filepath.Join(t.TempDir(), "layer")
	partitioned(t, path, layer)
	c.Disks = append(disks.Disks, vm.Disk{Path: path, Slot: layerSlot, ReadOnly: true})
	c.Words = disks.Words
	c.Network = &vm.Network{MAC: cardMAC}
	g := secretGuest{Boot(t, c), owner, layer}
	call(t, g.Agent.CreateSandbox, &agentpb.CreateSandboxRequest{SandboxId: "pod", Storages: []*agentpb.Storage{
		{Driver: "ephemeral", Source: "shm", Fstype: "tmpfs", MountPoint: "/run/kata-containers/sandbox/shm"},
	}})
	g.setUpCard(t)
	return g
}

// ask is a workload that asks for a resource.
func (g secretGuest) ask(t *testing.T, path string) string {
	t.Helper()
	id := strings.ReplaceAll(path, "/", "-")
	spec := containerSpec(id, "sh", "-c", "exec 2>&1; wget -q -O - http://127.0.0.1:8006/cdh/resource/"+path)
	spec.Root.Path = "/run/kata-containers/" + id + "/rootfs"
	g.start(t, id, spec, layerStorage(fmt.Sprintf("%02x", layerSlot), spec.Root.Path, 1, g.layer))
	defer g.wait(t, id)
	return g.output(t, id)
}

func (g secretGuest) wantSecret(t *testing.T, path string) {
	t.Helper()
	if got := g.ask(t, path); got != evidencetest.OwnerText {
		t.Errorf("%s: the workload got %q", path, got)
	}
}

// wantNoSecret sees that the workload gets nothing. The guest's log says what kind
// of refusal that is, and the owner's why.
func (g secretGuest) wantNoSecret(t *testing.T, path, kind, reason string) {
	t.Helper()
	if got := g.ask(t, path); !strings.HasPrefix(got, "wget: server returned error") {
		t.Errorf("%s: the workload got %q", path, got)
	}
	if !slices.ContainsFunc(strings.Split(g.Console(), "\n"), func(line string) bool {
		return strings.Contains(line, `"workload got no resource"`) && strings.Contains(line, path) && strings.Contains(line, kind)
	}) {
		t.Errorf("%s: the guest's log does not say %q", path, kind)
	}
	if log := g.owner.Log(); !strings.Contains(log, reason) {
		t.Errorf("%s: the owner's log does not say %q: %s", path, reason, log)
	}
}
