package tee

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
)

func inRealm(p *evidencetest.CCA) (*ccaRealm, *evidencetest.TSM) {
	reports := &evidencetest.TSM{Provider: "arm_cca_guest", Sign: p.Sign}
	return &ccaRealm{turn: newTurn(), host: host{root: "/nonexistent", reports: reports}}, reports
}

func TestCCAEvidence(t *testing.T) {
	p := evidencetest.NewCCA(t)
	c, reports := inRealm(p)
	rd, err := evidence.NewReportData(bytes.Repeat([]byte{9}, 48))
	if err != nil {
		t.Fatal(err)
	}
	e, err := c.Collect(t.Context(), rd)
	if err != nil || e.Kind != evidence.CCA {
		t.Fatalf("Collect = %s, %v", e.Kind, err)
	}
	var body map[string][]int
	if err := json.Unmarshal(e.Data, &body); err != nil || len(body) != 1 {
		t.Fatalf("not as Trustee reads it: %v, %s", err, e.Data)
	}
	token := make([]byte, len(body["token"]))
	for i, n := range body["token"] {
		token[i] = byte(n)
	}
	challenge := rd.Padded()
	if !bytes.Contains(token, challenge[:]) {
		t.Error("the token does not hold the padded report data")
	}
	// The statements are signed by whom they should be. Each ends in its signature.
	platform, realm := p.Keys()
	statements := []struct {
		mark []byte // the key of the token behind the statement, none at its end
		err  error
	}{{mark: []byte{0x19, 0xac, 0xd1}}, {}}
	first := bytes.Index(token, statements[0].mark)
	for i, part := range [][]byte{token[:first], token[first:]} {
		at := bytes.Index(part, []byte{0xd2, 0x84, 0x44, 0xa1, 0x01, 0x38, 0x22, 0xa0, 0x59})
		size := int(part[at+9])<<8 | int(part[at+10])
		payload, signature := part[at+11:at+11+size], part[at+11+size+2:]
		key := platform
		if i == 1 {
			key = realm
		}
		if err := evidencetest.VerifySign1(key, payload, signature); err != nil {
			t.Errorf("statement %d: %v", i, err)
		}
	}
	if reports.Entries() != 0 {
		t.Errorf("%d entries are left", reports.Entries())
	}
}

func TestCCAAnchor(t *testing.T) {
	p := evidencetest.NewCCA(t)
	p.Personalization = [64]byte(bytes.Repeat([]byte{0x1d}, 64))
	c, _ := inRealm(p)
	for range 2 {
		if got, err := c.LaunchAnchor(t.Context()); err != nil || !bytes.Equal(got, p.Personalization[:]) {
			t.Errorf("LaunchAnchor = %x, %v", got, err)
		}
	}
	p.Fault = unix.EIO
	if got, err := c.LaunchAnchor(t.Context()); err == nil {
		t.Errorf("a fault: %x", got)
	}
}

func TestCCARefusals(t *testing.T) {
	p := evidencetest.NewCCA(t)
	c, reports := inRealm(p)
	for name, tt := range map[string]struct {
		edit  func([]byte) []byte
		class func(error) bool
	}{
		"other challenge": {func(b []byte) []byte { return bytes.Replace(b, make([]byte, 64), bytes.Repeat([]byte{1}, 64), 2) }, errdefs.IsDataLoss},
		"nothing":         {func([]byte) []byte { return nil }, errdefs.IsInvalidArgument},
		"cut":             {func(b []byte) []byte { return b[:len(b)-1] }, errdefs.IsInvalidArgument},
		"too large":       {func(b []byte) []byte { return make([]byte, 64<<10+1) }, errdefs.IsInvalidArgument},
	} {
		p.Edit = tt.edit
		if e, err := c.Collect(t.Context(), evidence.ReportData{}); !tt.class(err) {
			t.Errorf("%s: %s, %v", name, e.Data, err)
		}
		if anchor, err := c.LaunchAnchor(t.Context()); !tt.class(err) {
			t.Errorf("%s: anchor %x, %v", name, anchor, err)
		}
	}
	p.Edit = nil
	reports.Races = 1
	if _, err := c.Collect(t.Context(), evidence.ReportData{}); err != nil || reports.Signed() < 2 {
		t.Errorf("somebody else wrote once: %v", err)
	}
	reports.Provider = "tdx_guest"
	if _, err := c.Collect(t.Context(), evidence.ReportData{}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("another provider: %v", err)
	}
}
