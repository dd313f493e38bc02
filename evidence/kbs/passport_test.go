package kbs_test

import (
	"crypto/ecdsa"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/coffer-cc/coffer/evidence/devkbs"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/kbs"
)

// pair is a broker that attests and one that has the resources.
func pair(t *testing.T, trusted bool) (verifier, keeper *evidencetest.KBS) {
	t.Helper()
	verifier = evidencetest.NewTLSKBS(t, devkbs.Options{AllowSample: true, Resources: evidencetest.Resources(nil)})
	o := options()
	o.AllowSample = false // so nobody can attest to it directly
	if trusted {
		o.Trust = []*ecdsa.PublicKey{verifier.Broker.PublicKey()}
	}
	return verifier, evidencetest.NewKBS(t, o)
}

func TestPassport(t *testing.T) {
	for kind := range keyKinds {
		t.Run(kind, func(t *testing.T) {
			verifier, keeper := pair(t, true)
			c := newClient(t, kbs.Config{URL: keeper.URL, AttestURL: verifier.URL, AttestCert: verifier.Cert, KeyAlgorithm: kind})
			wantContents(t, c)
			wantContents(t, c)
			if verifier.Count("attest") != 1 || keeper.Count("auth") != 0 || verifier.Count("resource") != 0 {
				t.Errorf("verifier attested %d and gave %d, keeper opened %d sessions",
					verifier.Count("attest"), verifier.Count("resource"), keeper.Count("auth"))
			}
		})
	}
}

func TestPassportOfAStranger(t *testing.T) {
	verifier, keeper := pair(t, false)
	c := newClient(t, kbs.Config{URL: keeper.URL, AttestURL: verifier.URL, AttestCert: verifier.Cert})
	if _, err := c.Resource(ctx, name); !errors.Is(err, kbs.ErrSession) {
		t.Errorf("Resource: %v, want ErrSession", err)
	}
	if n := verifier.Count("attest"); n != 2 {
		t.Errorf("%d attestations, want the first and one renewal", n)
	}
}

// A token for another key opens nothing, as the resource is wrapped for that one.
func TestPassportOfAnotherGuest(t *testing.T) {
	verifier, keeper := pair(t, true)
	config := kbs.Config{URL: keeper.URL, AttestURL: verifier.URL, AttestCert: verifier.Cert}
	var stolen string
	keeper.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if stolen == "" {
			stolen = r.Header.Get("Authorization")
		}
		r.Header.Set("Authorization", stolen)
		return false
	})
	wantContents(t, newClient(t, config))
	if _, err := newClient(t, config).Resource(ctx, name); !errors.Is(err, kbs.ErrReply) {
		t.Errorf("Resource with a stolen token: %v, want ErrReply", err)
	}
}

func TestPassportChanged(t *testing.T) {
	verifier, keeper := pair(t, true)
	keeper.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		parts := strings.Split(r.Header.Get("Authorization"), ".")
		claims, err := base64.RawURLEncoding.DecodeString(parts[1])
		if err != nil {
			t.Error(err)
		}
		parts[1] = base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(claims), "warning", "affirming", 1)))
		r.Header.Set("Authorization", strings.Join(parts, "."))
		return false
	})
	c := newClient(t, kbs.Config{URL: keeper.URL, AttestURL: verifier.URL, AttestCert: verifier.Cert})
	if _, err := c.Resource(ctx, name); !errors.Is(err, kbs.ErrSession) {
		t.Errorf("Resource: %v, want ErrSession", err)
	}
}

// One broker under two spellings of the configuration is no passport.
func TestSameBrokerTwice(t *testing.T) {
	k := evidencetest.NewKBS(t, options())
	var bearer bool
	k.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		bearer = bearer || r.Header.Get("Authorization") != ""
		return false
	})
	wantContents(t, newClient(t, kbs.Config{URL: k.URL, AttestURL: k.URL + "/"}))
	if bearer {
		t.Error("a token was sent to the broker that has the session")
	}
}
