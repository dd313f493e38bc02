package tee

import (
	"crypto/sha512"
	"encoding/binary"
	"encoding/json"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/measure"
	"github.com/coffer-cc/coffer/evidence/verify"
)

// runtimeOf extends the registers of a platform that makes quotes.
type runtimeOf struct{ *evidencetest.TDX }

func (r runtimeOf) RTMR(index int) ([]byte, error) {
	now := r.TDX.RTMR[index]
	return now[:], nil
}

func (r runtimeOf) Extend(index int, digest []byte) error {
	now := r.TDX.RTMR[index]
	r.TDX.RTMR[index] = sha512.Sum384(append(now[:], digest...))
	return nil
}

// What is recorded goes along with the evidence, behind the firmware's log or
// behind a header, and a verifier can replay all of it to the quote.
func TestTDXRuntimeLog(t *testing.T) {
	for name, firmware := range map[string]bool{"behind the firmware's": true, "alone": false} {
		t.Run(name, func(t *testing.T) {
			p := evidencetest.NewTDX(t)
			g := tdxOnConfigfs(t, p)
			if firmware {
				area := evidencetest.Fixture(t, "eventlog/ccel_data.dat.gz")
				put(t, g.host.root, ccel, area)
				events, _, err := measure.CCEL(area)
				if err != nil {
					t.Fatal(err)
				}
				if p.RTMR, err = measure.Replay(events); err != nil {
					t.Fatal(err)
				}
			}
			log, err := measure.OpenLog(t.TempDir(), measure.TDX(runtimeOf{p}))
			if err != nil {
				t.Fatal(err)
			}
			g.log = log
			for _, content := range []string{"one", "two"} {
				if err := log.Append(measure.Entry{Domain: "example.com", Operation: "Test", Content: content}, 17); err != nil {
					t.Fatal(err)
				}
			}
			e, err := g.Collect(t.Context(), someData(t))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := verify.Evidence(evidence.TDX, e.Data, verify.Options{TDXRoots: p.Roots()}); err != nil {
				t.Fatal(err)
			}
			events := eventsOf(t, e.Data)
			if last := string(events[len(events)-1].Data); !strings.HasSuffix(last, "example.com Test two") {
				t.Errorf("the last event is %q", last)
			}
			if replayed, err := measure.Replay(events); err != nil || replayed != p.RTMR {
				t.Errorf("the log does not replay: %v", err)
			}
			p.RTMR[3][0] ^= 1
			if e, err = g.Collect(t.Context(), someData(t)); err != nil {
				t.Fatal(err)
			}
			if _, err := verify.Evidence(evidence.TDX, e.Data, verify.Options{TDXRoots: p.Roots()}); err == nil {
				t.Error("a register that somebody else extended passes")
			}
		})
	}
}

func eventsOf(t *testing.T, data json.RawMessage) []measure.Event {
	t.Helper()
	var e struct {
		EventLog []byte `json:"cc_eventlog"`
	}
	if err := json.Unmarshal(data, &e); err != nil {
		t.Fatal(err)
	}
	if n := binary.LittleEndian.Uint32(e.EventLog[4:]); n != 3 {
		t.Errorf("the log begins with an event of type %d", n)
	}
	events, _, err := measure.CCEL(e.EventLog)
	if err != nil || len(events) == 0 {
		t.Fatalf("%d events, %v", len(events), err)
	}
	return events
}

func TestTDXOpenLog(t *testing.T) {
	g := tdxOnConfigfs(t, evidencetest.NewTDX(t))
	if _, err := g.OpenLog(t.TempDir()); !errdefs.IsNotImplemented(err) || !strings.Contains(err.Error(), "NOT_SUPPORTED") || g.log != nil {
		t.Errorf("a kernel without registers: %v", err)
	}
	put(t, g.host.root, "sys/devices/virtual/misc/tdx_guest/measurements/rtmr3:sha384", make([]byte, 48))
	if l, err := g.OpenLog(t.TempDir()); err != nil || g.log != l {
		t.Errorf("OpenLog: %v", err)
	}
}
