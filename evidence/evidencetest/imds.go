package evidencetest

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
)

// IMDS is Azure's metadata service, as far as attestation needs it. Set the
// fields before the guest's first use.
type IMDS struct {
	URL string
	// Script may answer in its place: it returns false to leave that to it.
	Script func(w http.ResponseWriter, r *http.Request) bool

	snp                     *SNP
	tdx                     *TDX
	requests, certs, quotes atomic.Int64
}

// NewIMDS serves the hardware, of which one is nil.
func NewIMDS(t testing.TB, snp *SNP, tdx *TDX) *IMDS {
	t.Helper()
	m := &IMDS{snp: snp, tdx: tdx}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metadata/THIM/amd/certification", m.certification)
	mux.HandleFunc("POST /acc/tdquote", m.tdquote)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.requests.Add(1)
		if m.Script != nil && m.Script(w, r) {
			return
		}
		// It keeps web applications from being sent here by others.
		if r.Header.Get("Metadata") != "true" || r.Header.Get("X-Forwarded-For") != "" {
			http.Error(w, `{"error":"Bad request. Required metadata header not specified"}`, http.StatusBadRequest)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	m.URL = s.URL
	return m
}

// Requests counts all that was asked for.
func (m *IMDS) Requests() int { return int(m.requests.Load()) }

// Certificates counts VCEKs that were given out.
func (m *IMDS) Certificates() int { return int(m.certs.Load()) }

// Quotes counts those that were given out.
func (m *IMDS) Quotes() int { return int(m.quotes.Load()) }

func (m *IMDS) certification(w http.ResponseWriter, r *http.Request) {
	if m.snp == nil {
		http.NotFound(w, r)
		return
	}
	m.certs.Add(1)
	text := func(der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	root, between := m.snp.Roots()
	reply(w, map[string]string{
		"vcekCert": text(m.snp.VCEK().Raw), "tcbm": "DB18000000000004", "cacheControl": "86400",
		"certificateChain": text(between.Raw) + text(root.Raw),
	})
}

func (m *IMDS) tdquote(w http.ResponseWriter, r *http.Request) {
	var req struct {
		Report string `json:"report"`
	}
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(body, &req)
	}
	report, err64 := base64.RawURLEncoding.DecodeString(req.Report)
	if err != nil || err64 != nil || len(report) != tdreportSize || r.Header.Get("Content-Type") != "application/json" || m.tdx == nil {
		http.Error(w, `{"error":"Unable to process the report"}`, http.StatusBadRequest)
		return
	}
	data, err := m.tdx.reported(report)
	var quote []byte
	if err == nil {
		quote, err = m.tdx.Quote(data)
	}
	if err != nil {
		http.Error(w, `{"error":"Unable to quote"}`, http.StatusInternalServerError)
		return
	}
	m.quotes.Add(1)
	reply(w, map[string]string{"quote": base64.RawURLEncoding.EncodeToString(quote)})
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_ = json.NewEncoder(w).Encode(v) // a guest may hang up
}
