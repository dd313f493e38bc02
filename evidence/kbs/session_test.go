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
		name           string
		lifetime, want time.Duration
	}{
		{"trustee", 5 * time.Minute, 4 * time.Minute},
		{"unknown", 0, 4 * time.Minute},
		{"nonsense", -time.Hour, 4 * time.Minute},
		{"endless", 1000 * time.Hour, 48 * time.Minute},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := time.Until(renewal(tt.lifetime)); got > tt.want || got < tt.want-time.Minute {
				t.Errorf("renewal in %v, want %v", got, tt.want)
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
	if left := time.Until(first.renewAt); left > 40*time.Minute || left < 39*time.Minute {
		t.Errorf("renewal in %v, want 40 minutes", left)
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
