package tee

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/verify"
)

// FuzzReport rebuilds from the JSON what went into it.
func FuzzReport(f *testing.F) {
	p, err := evidencetest.OpenSNP()
	if err != nil {
		f.Fatal(err)
	}
	for _, version := range []uint32{2, 3, 4, 5} {
		p.Version = version
		raw, err := p.Report([64]byte{1})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	raw, _, err := verify.Decompose(evidencetest.Fixture(f, "snp/evidence-genoa-trustee.json"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := parseReport(raw)
		if err != nil {
			return
		}
		data, err := statement{report: r}.encode([64]byte(r[0x50:]))
		if err != nil {
			return
		}
		again, _, err := verify.Decompose(data)
		if err != nil {
			t.Fatal(err)
		}
		// The TCBs have bytes that neither form of processor uses.
		masked := bytes.Clone(r)
		for _, at := range []int{0x38, 0x180, 0x1e0, 0x1f0} {
			unused := []int{2, 3, 4, 5}
			if r[0x188] == 0x1a {
				unused = []int{4, 5, 6}
			}
			for _, i := range unused {
				masked[at+i] = 0
			}
		}
		if !bytes.Equal(again, masked) {
			t.Errorf("the JSON loses something:\n%x\n%x", masked, again)
		}
	})
}

func FuzzCertTable(f *testing.F) {
	p, err := evidencetest.OpenSNP()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(p.Table())
	f.Add(p.Table()[:100])
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, table []byte) {
		chain := parseCertTable(table)
		if len(chain) > maxCerts {
			t.Errorf("%d certificates", len(chain))
		}
		for _, c := range chain {
			if len(c.Data) == 0 || len(c.Data) > len(table) {
				t.Errorf("certificate of %d bytes", len(c.Data))
			}
		}
		if text, err := json.Marshal(chain); err != nil || chain == nil && string(text) != "null" {
			t.Errorf("%s, %v", text, err)
		}
	})
}

func FuzzQGSReply(f *testing.F) {
	f.Add(evidencetest.QGSAnswer([]byte("quote")))
	f.Add([]byte{0, 0, 0, 24})
	f.Fuzz(func(t *testing.T, answer []byte) {
		if quote, err := qgsReply(bytes.NewReader(answer)); err == nil && len(quote) > len(answer) {
			t.Errorf("a quote of %d bytes in %d", len(quote), len(answer))
		}
	})
}

func FuzzCheckQuote(f *testing.F) {
	f.Add(evidencetest.Fixture(f, "tdx/tdx_quote_4.dat"))
	f.Add(evidencetest.Fixture(f, "tdx/tdx_quote_5.dat"))
	f.Fuzz(func(_ *testing.T, q []byte) { _ = checkQuote(q, [64]byte{}) })
}

// FuzzSERequest hands whatever passes for a request to the ultravisor.
func FuzzSERequest(f *testing.F) {
	uv := evidencetest.NewUltravisor(f)
	challenge, _ := uv.Challenge()
	f.Add(challenge)
	f.Add(`{"request_blob":"AA==","measurement_size":1,"additional_size":32768,"encr_measurement_key":"AA==","encr_request_nonce":"AA==","image_hdr_tags":"AA=="}`)
	root := f.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "dev"), 0o755); err != nil {
		f.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "dev/uv"), nil, 0o600); err != nil {
		f.Fatal(err)
	}
	h := host{root: root, ioctl: uv.Ioctl}
	f.Fuzz(func(t *testing.T, text string) {
		req, err := parseSERequest(text)
		if err != nil {
			return
		}
		if m, err := h.measureUV(req, [64]byte{}); err == nil && len(m.measurement) != int(req.Measurement) {
			t.Errorf("%d bytes of measurement for %d", len(m.measurement), req.Measurement)
		}
	})
}
