package tee

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"github.com/google/go-sev-guest/client/linuxabi"

	"github.com/coffer-cc/coffer/evidence"
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
	for _, processor := range [][2]byte{{0x19, 0x01}, {0x19, 0x11}, {0x19, 0xa0}, {0x1a, 0x02}, {0x1a, 0x50}} { // Milan, Genoa, Siena, Turin, nobody
		raw, err := p.Report([64]byte{1})
		if err != nil {
			f.Fatal(err)
		}
		raw[0x188], raw[0x189] = processor[0], processor[1]
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

// FuzzCertTable bounds what a table can become, whatever its entries point to.
func FuzzCertTable(f *testing.F) {
	p, err := evidencetest.OpenSNP()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(p.Table())
	f.Add(p.Table()[:100])
	f.Add([]byte(nil))
	for _, at := range [][2]uint32{{0, 48}, {24, 24}, {47, 2}, {48, 1}, {1<<32 - 1, 2}, {24, 1<<32 - 1}} { // offset, size
		e := binary.LittleEndian.AppendUint32(bytes.Clone(certTypes[0].guid[:]), at[0])
		e = binary.LittleEndian.AppendUint32(e, at[1])
		f.Add(append(e, e...))
	}
	f.Fuzz(func(t *testing.T, table []byte) {
		chain := parseCertTable(table)
		kinds := map[string]bool{}
		for _, c := range chain {
			if len(c.Data) == 0 || len(c.Data) > min(len(table), maxCertLen) || kinds[c.Type] {
				t.Errorf("%s of %d bytes", c.Type, len(c.Data))
			}
			kinds[c.Type] = true
		}
		if text, err := json.Marshal(chain); err != nil || chain == nil && string(text) != "null" {
			t.Errorf("%s, %v", text, err)
		}
	})
}

// said is a device of SNP that answers each request with the same bytes.
type said struct{ response, table []byte }

func (s said) Ioctl(_ uintptr, request any) (uintptr, error) {
	r := request.(*linuxabi.SnpUserGuestRequest)
	resp := r.RespData.(*linuxabi.SnpReportRespABI)
	copy(unsafe.Slice((*byte)(resp.Pointer()), evidencetest.SNPResponse), s.response)
	if ext, ok := r.ReqData.(*linuxabi.SnpExtendedReportReq); ok {
		copy(ext.Certs, s.table)
	}
	return 0, resp.Finish(resp)
}

func (said) Close() error { return nil }

// FuzzSNPDevice takes an answer all the way to evidence, which then is about
// this request and no longer than the host may make it.
func FuzzSNPDevice(f *testing.F) {
	p, err := evidencetest.OpenSNP()
	if err != nil {
		f.Fatal(err)
	}
	report, err := p.Report([64]byte{1})
	if err != nil {
		f.Fatal(err)
	}
	for _, head := range [][2]uint32{{0, reportSize}, {0, 100}, {0, 1<<32 - 1}, {0x16, 0}} { // status, size
		response := binary.LittleEndian.AppendUint32(nil, head[0])
		response = binary.LittleEndian.AppendUint32(response, head[1])
		f.Add(append(append(response, make([]byte, 24)...), report...), p.Table())
	}
	rd, err := evidence.NewReportData([]byte{1})
	if err != nil {
		f.Fatal(err)
	}
	root := f.TempDir()
	f.Fuzz(func(t *testing.T, response, table []byte) {
		h := host{root: root, reports: &evidencetest.TSM{}, openSNP: func(string) (snpDevice, error) { return said{response, table}, nil }}
		e, err := (&snpGuest{host: h, turn: newTurn()}).Collect(t.Context(), rd)
		if err != nil {
			return
		}
		raw, _, err := verify.Decompose(e.Data)
		if err != nil || [64]byte(raw[0x50:]) != rd.Padded() || len(e.Data) > 1<<20 {
			t.Errorf("%d bytes of evidence, %v", len(e.Data), err)
		}
	})
}

// FuzzQGSReply demands that a quote is a part of the answer, as long as it says.
func FuzzQGSReply(f *testing.F) {
	good := evidencetest.QGSAnswer([]byte("quote"))
	f.Add(good)
	f.Add([]byte{0, 0, 0, 24})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	for _, at := range []int{8, 16, 20, 24} { // type, error, size of the id, size of the quote
		bad := bytes.Clone(good)
		bad[at], bad[at+3] = 3, 0xff
		f.Add(bad)
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		quote, err := qgsReply(bytes.NewReader(answer))
		if err == nil && (!bytes.Contains(answer, quote) || len(quote) != int(binary.LittleEndian.Uint32(answer[24:]))) {
			t.Errorf("a quote of %d bytes in %d", len(quote), len(answer))
		}
	})
}

// FuzzCheckQuote demands that what passes is for this request.
func FuzzCheckQuote(f *testing.F) {
	four, five := evidencetest.Fixture(f, "tdx/tdx_quote_4.dat"), evidencetest.Fixture(f, "tdx/tdx_quote_5.dat")
	in := [64]byte{1}
	copy(four[quoteHeader+bodyReportData:], in[:])
	copy(five[quoteHeader+quoteBodyHead+bodyReportData:], in[:])
	f.Add(four)
	f.Add(five)
	f.Add(four[:quoteHeader+quoteBody])
	f.Add(five[:quoteHeader+quoteBodyHead+quoteBody])
	f.Fuzz(func(t *testing.T, q []byte) {
		if checkQuote(q, in) == nil && !bytes.Contains(q, in[:]) {
			t.Error("a quote for something else")
		}
	})
}

// FuzzHelper demands that what is passed on is an object, and compact.
func FuzzHelper(f *testing.F) {
	for _, text := range []string{`{"evidence":{"a":1}}`, `{"error":"no GPU"}`, `{"evidence": {} , "evidence":[]}`, `{"evidence":null}`, `{"evidence":{}}{}`, ""} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		data, err := helperStatement(text)
		if err == nil && (!json.Valid(data) || data[0] != '{' || len(data) > len(text)) {
			t.Errorf("%q of %q", data, text)
		}
	})
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

// FuzzHCL finds in a report nothing that is not in it.
func FuzzHCL(f *testing.F) {
	for _, raw := range recordedHCL(f) {
		f.Add(raw)
		f.Add(raw[:hclClaims])
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := parseHCL(raw)
		if err != nil {
			return
		}
		if len(r.claims) > len(raw) || len(r.hardware()) > reportSize {
			t.Errorf("claims of %d bytes and a report of %d in %d", len(r.claims), len(r.hardware()), len(raw))
		}
		_ = r.bound()
		if st, err := r.statement(); err == nil && (st.key.N.BitLen() > 4096 || st.key.E < 0 || len(st.userData) > 64) {
			t.Errorf("key of %d bits, exponent %d, %d bytes of data", st.key.N.BitLen(), st.key.E, len(st.userData))
		}
	})
}

// imdsText answers each request with the text, without a network.
type imdsText string

// RoundTrip is that of http.RoundTripper.
func (s imdsText) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(string(s)))}, nil
}

// FuzzIMDS reads answers of the metadata service.
func FuzzIMDS(f *testing.F) {
	f.Add(vcekAnswer([]byte("certificate")))
	f.Add(`{"quote":"_-8="}`)
	f.Add(`{"vcekCert":"-----BEGIN CERTIFICATE-----\n\n-----END CERTIFICATE-----"}`)
	f.Fuzz(func(t *testing.T, text string) {
		m := imds{base: "http://host", http: &http.Client{Transport: imdsText(text)}}
		if der, err := m.vcek(t.Context()); err == nil {
			if len(der) > min(len(text), maxVCEK) {
				t.Errorf("a certificate of %d bytes in %d", len(der), len(text))
			}
			_ = snpReport(make([]byte, reportSize)).signedBy(der)
		}
		if quote, err := m.quote(t.Context(), nil); err == nil && (len(quote) == 0 || len(quote) > len(text)) {
			t.Errorf("a quote of %d bytes in %d", len(quote), len(text))
		}
	})
}
