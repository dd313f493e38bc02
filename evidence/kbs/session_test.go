package kbs

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coffer-cc/coffer/evidence/devkbs"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/resource"
	"github.com/coffer-cc/coffer/evidence/tee"
)

func TestRenewal(t *testing.T) {
	tests := []struct {
		name            string
		lifetime, whole time.Duration
	}{
		{"trustee", 5 * time.Minute, 5 * time.Minute},
		{"unknown", 0, 5 * time.Minute},
		{"nonsense", -time.Hour, 5 * time.Minute},
		{"endless", 1000 * time.Hour, time.Hour},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			seen := map[time.Duration]bool{}
			for range 20 {
				start := time.Now()
				at := renewal(tt.lifetime)
				if at.Before(start.Add(tt.whole*70/100)) || at.After(time.Now().Add(tt.whole*86/100)) {
					t.Errorf("renewal in %v of %v", at.Sub(start), tt.whole)
				}
				seen[at.Sub(start).Round(time.Millisecond)] = true
			}
			if len(seen) < 2 {
				t.Error("all guests renew at the same time")
			}
		})
	}
}

// The lifetime is the shorter one of session and token, whatever time it is
// for the guest.
func TestLifetimeComesFromBroker(t *testing.T) {
	k := evidencetest.NewKBS(t, devkbs.Options{
		AllowSample: true,
		Lifetime:    50 * time.Minute,
		Resources:   evidencetest.Resources(map[string]string{"r/t/g": "x"}),
	})
	c, err := New(Config{URL: k.URL, Collector: tee.Sample()})
	if err != nil {
		t.Fatal(err)
	}
	fetch := func() {
		t.Helper()
		if _, err := c.Resource(context.Background(), resource.URI{Repository: "r", Type: "t", Tag: "g"}); err != nil {
			t.Fatal(err)
		}
	}
	fetch()
	first := c.current
	if left := time.Until(first.renewAt); left > 43*time.Minute || left < 34*time.Minute {
		t.Errorf("renewal in %v of 50 minutes", left)
	}
	first.renewAt = time.Now()
	fetch()
	if c.drop(first); c.current == nil {
		t.Error("a caller with an old session drops the new one")
	}
	if c.current == first || k.Count("attest") != 2 || c.current.key == first.key {
		t.Error("a session whose time has come is still used")
	}
}

func TestSessionCookie(t *testing.T) {
	const now = "Mon, 02 Jan 2006 15:04:05 GMT"
	tests := []struct {
		name, date, cookie string
		value              string
		lifetime           time.Duration
	}{
		{"trustee", now, "kbs-session-id=ab; Expires=Mon, 02 Jan 2006 15:09:05 GMT", "ab", 5 * time.Minute},
		{"no end", now, "kbs-session-id=ab", "ab", 0},
		{"no date", "", "kbs-session-id=ab; Expires=" + now, "ab", 0},
		{"over already", now, "kbs-session-id=ab; Expires=Mon, 02 Jan 2006 15:03:05 GMT", "ab", -time.Minute},
		{"other cookie", now, "session=ab", "", 0},
		{"empty", now, "kbs-session-id=", "", 0},
		{"too long", now, "kbs-session-id=" + strings.Repeat("a", maxCookie+1), "", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			resp := &http.Response{Header: http.Header{"Date": {tt.date}, "Set-Cookie": {tt.cookie}}}
			if value, lifetime := sessionCookie(resp); value != tt.value || lifetime != tt.lifetime {
				t.Errorf("sessionCookie = %q, %v, want %q, %v", value, lifetime, tt.value, tt.lifetime)
			}
		})
	}
}
