package main

import (
	"context"
	"encoding/binary"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/coffer-cc/coffer/agent/network"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
)

// onHostileDevices prepares a test in which the agent as it ships meets devices
// behind which a host lies.
func onHostileDevices(t *testing.T) (agent string) {
	t.Helper()
	stack, err := network.Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stack.Close() })
	if err := stack.LoopbackUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	return buildAgent(t)
}

// wantFault sees that the agent ends its boot with the fault, and says so.
func (m *machineOf) wantFault(fault string) {
	m.t.Helper()
	if err := m.check(); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), fault) {
		m.t.Errorf("health: %v, want %q", err, fault)
	}
	if said := m.end(); !strings.Contains(said, fault) {
		m.t.Errorf("nobody said %q", fault)
	}
}

// wantNoKey sees that the agent serves, gives no key out, and says why.
func (m *machineOf) wantNoKey(fault string) {
	m.t.Helper()
	m.wantServing()
	if code, body := m.secret(); code == http.StatusOK {
		m.t.Errorf("the key: %q", body)
	}
	m.wantServing()
	if said := m.end(); !strings.Contains(said, fault) {
		m.t.Errorf("nobody said %q", fault)
	}
}

// wantKey sees that the agent serves and gives the key out.
func (m *machineOf) wantKey() {
	m.t.Helper()
	m.wantServing()
	if code, body := m.secret(); code != http.StatusOK || body != evidencetest.OwnerText {
		m.t.Errorf("the key: %d %q", code, body)
	}
}

// snpLie is what a host of SEV-SNP does.
type snpLie struct {
	lie   func(*evidencetest.SNPAnswer)
	fault string // "" where the key comes all the same
	plain bool   // also in plain reports, one of which has the anchor
	boot  bool   // ends the boot
}

// entry appends an entry to a table of certificates.
func entry(table []byte, guid string, at, size uint32) []byte {
	table = append(table, guid...)
	table = binary.LittleEndian.AppendUint32(table, at)
	return binary.LittleEndian.AppendUint32(table, size)
}

// vcek is the GUID of the entry without which no broker verifies.
const vcek = "\x63\xda\x75\x8d\xe6\x64\x45\x64\xad\xc5\xf4\xb9\x3b\xe8\xac\xcd"

// unknown is the GUID of an entry that nobody reads.
const unknown = "an unknown guid."

const report = 0x20 // its offset in an answer

var snpLies = map[string]snpLie{
	"other report data": {lie: func(a *evidencetest.SNPAnswer) { a.Response[report+0x50] ^= 1 }, fault: "carries other report data"},
	"version 2":         {lie: func(a *evidencetest.SNPAnswer) { a.Response[report] = 2 }, fault: "has version 2"},
	"VMPL 1":            {lie: func(a *evidencetest.SNPAnswer) { a.Response[report+0x30] = 1 }, fault: "is for VMPL 1"},
	"other signature":   {lie: func(a *evidencetest.SNPAnswer) { a.Response[report+0x2a0] ^= 1 }, fault: "verdict/refused", plain: true},
	"short report": {lie: func(a *evidencetest.SNPAnswer) { binary.LittleEndian.PutUint32(a.Response[4:], 100) },
		plain: true, boot: true, fault: "report of 100 bytes is too short"},
	"longer than its buffer": {lie: func(a *evidencetest.SNPAnswer) { binary.LittleEndian.PutUint32(a.Response[4:], 1<<31) }},
	"status": {lie: func(a *evidencetest.SNPAnswer) { a.Response[0] = 0x16 },
		plain: true, boot: true, fault: "get_report had invalid parameters"},
	"error of the firmware at boot": {lie: func(a *evidencetest.SNPAnswer) { a.Exit = 5 }, plain: true, boot: true, fault: "firmware error 0x5"},
	"error of the firmware":         {lie: func(a *evidencetest.SNPAnswer) { a.Exit = 0x16 }, fault: "firmware error 0x16"},
	"busy for as long as one asks":  {lie: func(a *evidencetest.SNPAnswer) { a.Exit = evidencetest.SNPBusy }, plain: true, boot: true, fault: "timed out"},
	"more certificates than may be": {lie: func(a *evidencetest.SNPAnswer) { a.Table = make([]byte, 20<<10) }, fault: "verdict/refused"},
	"table without an end": {lie: func(a *evidencetest.SNPAnswer) {
		a.Table = []byte(strings.Repeat(unknown+"\x00\x00\x01\x00\x01\x00\x00\x00", 682))
	}, fault: "verdict/refused"},
	"certificate outside":              {lie: func(a *evidencetest.SNPAnswer) { a.Table = entry(nil, vcek, 0x3fff, 2) }, fault: "verdict/refused"},
	"certificate where numbers wrap":   {lie: func(a *evidencetest.SNPAnswer) { a.Table = entry(nil, vcek, 1<<32-1, 2) }, fault: "verdict/refused"},
	"huge certificate":                 {lie: func(a *evidencetest.SNPAnswer) { a.Table = entry(nil, vcek, 48, 1<<32-1) }, fault: "verdict/refused"},
	"certificate over the whole table": {lie: func(a *evidencetest.SNPAnswer) { a.Table = entry(nil, vcek, 0, 16<<10) }, fault: "verdict/refused"},
	"32 certificates of 16 KiB each": {lie: func(a *evidencetest.SNPAnswer) {
		a.Table = nil
		for range 32 {
			a.Table = entry(a.Table, vcek, 0, 16<<10)
		}
	}, fault: "verdict/refused"},
	"others over the right ones": {lie: func(a *evidencetest.SNPAnswer) {
		copy(a.Table, entry(nil, unknown, 24, 1<<31)) // in place of another that is unknown
	}},
}

// TestHostileSNP has the agent as it ships refuse what a host puts behind
// /dev/sev-guest, by name, and go on.
func TestHostileSNP(t *testing.T) {
	if !inGuest(t) {
		return
	}
	agent := onHostileDevices(t)
	for name, l := range snpLies {
		t.Run(name, func(t *testing.T) {
			d := &evidencetest.SEVGuest{Platform: evidencetest.NewSNP(t)}
			d.Host = func(command uint32, a *evidencetest.SNPAnswer) {
				if l.plain || command == evidencetest.SNPGetExtReport {
					l.lie(a)
				}
			}
			m := bootOn(t, agent, snpDevice(t, d), launch{disk: true, anchor: same})
			switch {
			case l.boot:
				m.wantFault(l.fault)
			case l.fault == "":
				m.wantKey()
			default:
				m.wantNoKey(l.fault)
			}
			if !l.boot && d.Asked(evidencetest.SNPGetExtReport) == 0 {
				t.Error("the host was not asked")
			}
		})
	}
}

// held is a device that answers only when it is released.
type held struct {
	asked, answer chan struct{}
	release       func()
}

// hold lets the first n requests of a device pass.
func hold(t *testing.T, d *evidencetest.SEVGuest, n int) held {
	h := held{asked: make(chan struct{}), answer: make(chan struct{})}
	h.release = sync.OnceFunc(func() { close(h.answer) })
	t.Cleanup(h.release)
	seen := 0
	d.Host = func(uint32, *evidencetest.SNPAnswer) {
		if seen++; seen == n+1 {
			close(h.asked)
		}
		if seen > n {
			<-h.answer
		}
	}
	return h
}

// TestSilentDevice has a host that answers late: neither does that hold the boot,
// nor a caller beyond its deadline, nor the rest of the agent. When it does
// answer all goes on.
func TestSilentDevice(t *testing.T) {
	if !inGuest(t) {
		return
	}
	agent := onHostileDevices(t)
	t.Run("at boot", func(t *testing.T) {
		d := &evidencetest.SEVGuest{Platform: evidencetest.NewSNP(t)}
		hold(t, d, 0)
		bootOn(t, agent, snpDevice(t, d), launch{disk: true, anchor: same}).wantFault("driver/timeout")
	})
	t.Run("caller that hangs up", func(t *testing.T) {
		d := &evidencetest.SEVGuest{Platform: evidencetest.NewSNP(t)}
		h := hold(t, d, 1)
		m := bootOn(t, agent, snpDevice(t, d), launch{disk: true, anchor: same})
		m.wantServing()
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-h.asked
			cancel()
		}()
		if code, body, err := m.askSecret(ctx, evidencetest.OwnerKey); err == nil {
			t.Errorf("the key: %d %q", code, body)
		}
		m.wantServing()
		h.release()
		m.wantKey()
	})
	t.Run("caller that waits", func(t *testing.T) {
		if os.Getenv(soakEnv) == "" {
			t.Skip("waits for the 50 seconds of a caller's deadline; runs with " + soakEnv)
		}
		d := &evidencetest.SEVGuest{Platform: evidencetest.NewSNP(t)}
		h := hold(t, d, 1)
		m := bootOn(t, agent, snpDevice(t, d), launch{disk: true, anchor: same})
		m.wantServing()
		if code, body := m.secret(); code == http.StatusOK || !strings.Contains(body, "driver/timeout") {
			t.Errorf("the key: %d %q", code, body)
		}
		h.release()
		m.wantKey()
	})
	t.Run("agent that ends", func(t *testing.T) {
		d := &evidencetest.SEVGuest{Platform: evidencetest.NewSNP(t)}
		h := hold(t, d, 1)
		m := bootOn(t, agent, snpDevice(t, d), launch{disk: true, anchor: same})
		m.wantServing()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			_, _, _ = m.askSecret(ctx, evidencetest.OwnerKey) // whatever becomes of it
		}()
		<-h.asked
		m.end()
		cancel()
		<-gone
	})
}

// tdxLie is what a host of TDX does.
type tdxLie struct {
	module func(report []byte) error
	answer func(quote []byte) []byte // of the quoting service, nil where there is none
	fault  string
	boot   bool
}

var tdxLies = map[string]tdxLie{
	"report of another processor": {module: func(r []byte) error { r[128] ^= 1; return nil }, answer: evidencetest.QGSAnswer, fault: "endorsement/quoting"},
	"error of the module":         {module: func([]byte) error { return unix.EIO }, boot: true, fault: "driver/ioctl"},
	"no quoting service":          {fault: "endorsement/quoting"},
	"nothing":                     {answer: func([]byte) []byte { return nil }, fault: "endorsement/quoting"},
	"endless":                     {answer: func([]byte) []byte { return []byte{0xff, 0xff, 0xff, 0xff} }, fault: "answer of 4294967295 bytes"},
	"cut off":                     {answer: func(q []byte) []byte { return evidencetest.QGSAnswer(q)[:600] }, fault: "unexpected EOF"},
	"error":                       {answer: func(q []byte) []byte { a := evidencetest.QGSAnswer(q); a[16] = 3; return a }, fault: "error 0x3"},
	"other report data":           {answer: func(q []byte) []byte { q[48+520] ^= 1; return evidencetest.QGSAnswer(q) }, fault: "carries other report data"},
	"SGX":                         {answer: func(q []byte) []byte { q[4] = 0; return evidencetest.QGSAnswer(q) }, fault: "TEE type 0x0"},
	"short quote":                 {answer: func(q []byte) []byte { return evidencetest.QGSAnswer(q[:600]) }, fault: "quote of 600 bytes is too short"},
	"other signature":             {answer: func(q []byte) []byte { q[48+584+4] ^= 1; return evidencetest.QGSAnswer(q) }, fault: "verdict/refused"},
}

// TestHostileTDX has the agent as it ships refuse what a host puts behind its
// quoting service, by name, and go on.
func TestHostileTDX(t *testing.T) {
	if !inGuest(t) {
		return
	}
	agent := onHostileDevices(t)
	for name, l := range tdxLies {
		t.Run(name, func(t *testing.T) {
			p := evidencetest.NewTDX(t)
			module := &evidencetest.TDXGuest{Platform: p, Module: l.module}
			services := map[uint32]func(net.Conn) error{}
			if l.answer != nil {
				services[evidencetest.QGSPort] = func(c net.Conn) error {
					if err := p.ServeQGS(c, l.answer); err != nil && l.module == nil {
						return err
					}
					return nil
				}
			}
			m := bootOn(t, agent, tdxDevice(t, module, services), launch{disk: true, anchor: same})
			if l.boot {
				m.wantFault(l.fault)
			} else {
				m.wantNoKey(l.fault)
			}
		})
	}
}
