package main

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/coffer-cc/coffer/agent/config"
	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/devkbs"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
	document "github.com/coffer-cc/coffer/evidence/initdata"
	"github.com/coffer-cc/coffer/evidence/resource"
	"github.com/coffer-cc/coffer/evidence/tee"
)

// TestUnboundGuest sees what the guest says of its initdata to the key broker.
func TestUnboundGuest(t *testing.T) {
	doc, err := document.Parse([]byte("version = \"0.1.0\"\nalgorithm = \"sha256\"\n[data]\n"))
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		document *document.Document
		bound    bool
		want     string
	}{
		"no document":                      {nil, false, ""},
		"a document that hardware carries": {doc, true, ""},
		"a document that nothing carries":  {doc, false, "unbound"},
	} {
		t.Run(name, func(t *testing.T) {
			k := evidencetest.NewKBS(t, devkbs.Options{AllowSample: true, Resources: evidencetest.Resources(map[string]string{"default/key/1": "k"})})
			var body struct {
				Evidence struct {
					Primary map[string]string `json:"primary_evidence"`
				} `json:"tee-evidence"`
			}
			k.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
				if strings.HasSuffix(r.URL.Path, "/attest") {
					text, err := io.ReadAll(r.Body)
					if err != nil || json.Unmarshal(text, &body) != nil {
						t.Errorf("attest: %s, %v", text, err)
					}
					r.Body = io.NopCloser(strings.NewReader(string(text)))
				}
				return false
			})
			p := &process{config: config.Default(), platform: tee.Sample(), document: tt.document, bound: tt.bound, ledger: &ledger{}}
			p.config.KBC.URL, p.config.Image.WorkDir = k.URL, t.TempDir()
			g, err := p.guard()
			if err != nil {
				t.Fatal(err)
			}
			b, err := g.broker.Resource(t.Context(), resource.URI{Repository: "default", Type: "key", Tag: "1"})
			if err != nil || string(b) != "k" {
				t.Fatalf("Resource: %v", err)
			}
			shown, err := (&oneShot{process: p}).markUnbound(evidence.Evidence{Kind: evidence.Sample, Data: []byte("{}")})
			if err != nil || shown.SaysUnbound() != (tt.want != "") {
				t.Errorf("attest shows %s, %v", shown.Data, err)
			}
			if said := body.Evidence.Primary["initdata"]; said != tt.want || body.Evidence.Primary["svn"] == "" {
				t.Errorf("evidence says %q, want %q", said, tt.want)
			}
		})
	}
}
