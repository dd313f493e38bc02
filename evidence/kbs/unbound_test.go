package kbs_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coffer-cc/coffer/evidence/devkbs"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/initdata"
	"github.com/coffer-cc/coffer/evidence/kbs"
)

// A guest without an anchor says so, and a rule that names initdata does not
// take its word unless it says that.
func TestUnboundInitdata(t *testing.T) {
	text := []byte("version = \"0.1.0\"\nalgorithm = \"sha384\"\n[data]\n")
	digest, err := initdata.Digest("sha384", text)
	if err != nil {
		t.Fatal(err)
	}
	rule := fmt.Sprintf("[[resource]]\npath = \"*/*/*\"\ninitdata = [\"%x\"]\n", digest)
	for what, tt := range map[string]struct {
		rules   string
		unbound bool
		want    error
	}{
		"the rule asks for it":       {rule, true, kbs.ErrDenied},
		"it takes the word":          {rule + "unbound = true\n", true, nil},
		"of another document":        {fmt.Sprintf("[[resource]]\npath = \"*/*/*\"\ninitdata = [\"%096x\"]\nunbound = true\n", 1), true, kbs.ErrDenied},
		"no rule asks":               {"[[resource]]\npath = \"*/*/*\"\n", true, nil},
		"the guest does not mention": {rule, false, kbs.ErrDenied},
	} {
		t.Run(what, func(t *testing.T) {
			rules, err := devkbs.ParseRules([]byte(tt.rules))
			if err != nil {
				t.Fatal(err)
			}
			o := options()
			o.Rules = rules
			k := evidencetest.NewKBS(t, o)
			said := ""
			k.Intercept(rewrite("/attest", func(s string) string {
				var body struct {
					Evidence struct {
						Primary map[string]string `json:"primary_evidence"`
					} `json:"tee-evidence"`
				}
				if err := json.Unmarshal([]byte(s), &body); err != nil {
					t.Error(err)
				}
				said = body.Evidence.Primary["initdata"]
				return s
			}))
			c := newClient(t, kbs.Config{URL: k.URL, InitData: text, Unbound: tt.unbound})
			if _, err := c.Resource(ctx, name); !errors.Is(err, tt.want) {
				t.Errorf("Resource: %v, want %v", err, tt.want)
			}
			if (said == "unbound") != tt.unbound {
				t.Errorf("evidence says %q", said)
			}
		})
	}
}

// The token says it too.
func TestUnboundClaim(t *testing.T) {
	k := evidencetest.NewKBS(t, options())
	var token struct{ Token string }
	k.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/attest") {
			return false
		}
		reply := httptest.NewRecorder()
		k.Broker.ServeHTTP(reply, r)
		if err := json.Unmarshal(reply.Body.Bytes(), &token); err != nil {
			t.Error(err)
		}
		maps.Copy(w.Header(), reply.Header())
		_, err := w.Write(reply.Body.Bytes())
		return err == nil
	})
	wantContents(t, newClient(t, kbs.Config{URL: k.URL, Unbound: true}))
	parts := strings.Split(token.Token, ".")
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || !strings.Contains(string(payload), `"initdata":"unbound"`) {
		t.Errorf("token says %s, %v", payload, err)
	}
}
