package broker_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/broker"
	"github.com/coffer-cc/coffer/evidence/devkbs"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/resource"
	"github.com/coffer-cc/coffer/evidence/tee"
)

var name = resource.URI{Repository: "default", Type: "key", Tag: "1"}

func TestOpen(t *testing.T) {
	k := evidencetest.NewKBS(t, devkbs.Options{
		AllowSample: true,
		Resources:   evidencetest.Resources(map[string]string{"default/key/1": "k"}),
	})
	b, err := broker.Open(broker.Config{URL: k.URL}, tee.Sample())
	if err != nil {
		t.Fatal(err)
	}
	got, err := b.Resource(context.Background(), name)
	if err != nil || string(got) != "k" {
		t.Errorf("Resource = %d bytes, %v", len(got), err)
	}
	if _, err := broker.Open(broker.Config{URL: "ftp://x"}, tee.Sample()); !errdefs.IsInvalidArgument(err) {
		t.Errorf("Open with a bad URL: %v", err)
	}
}

var errNone = fmt.Errorf("this is SEV: %w", errdefs.ErrNotFound)

func TestOpenRefuses(t *testing.T) {
	tests := []struct {
		name      string
		config    broker.Config
		collector evidence.Collector
		say       string // all of it, behind what was asked for
	}{
		{"no broker", broker.Config{}, tee.Sample(), "transport/config: no key broker is configured: failed precondition"},
		{"no platform", broker.Config{URL: "http://127.0.0.1:1"}, nil, "platform/none: no confidential platform to attest for: failed precondition"},
		{"a platform that is refused", broker.Config{URL: "http://127.0.0.1:1", Missing: fmt.Errorf("find a platform: %w", evidence.PlatformUnsupported.Wrap(errNone))}, nil, "platform/unsupported: no evidence: find a platform: this is SEV: not found: failed precondition"},
		{"a fault without a code", broker.Config{URL: "http://127.0.0.1:1", Missing: errNone}, nil, "platform/none: no evidence: this is SEV: not found: failed precondition"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, err := broker.Open(tt.config, tt.collector)
			if err != nil {
				t.Fatal(err)
			}
			_, err = b.Resource(context.Background(), name)
			if !errdefs.IsFailedPrecondition(err) || errdefs.IsNotFound(err) {
				t.Errorf("Resource: %v, want failed precondition", err)
			}
			if want := "fetch " + name.String() + ": " + tt.say; err.Error() != want {
				t.Errorf("Resource: %q, want %q", err, want)
			}
			if code, _, _ := strings.Cut(tt.say, ": "); string(evidence.CodeOf(err)) != code {
				t.Errorf("code %s, want %s", evidence.CodeOf(err), code)
			}
		})
	}
}
