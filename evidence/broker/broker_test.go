package broker_test

import (
	"context"
	"errors"
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

func TestOpenRefuses(t *testing.T) {
	tests := []struct {
		name      string
		config    broker.Config
		collector evidence.Collector
	}{
		{"no broker", broker.Config{}, tee.Sample()},
		{"no platform", broker.Config{URL: "http://127.0.0.1:1"}, nil},
		{"a platform that is refused", broker.Config{URL: "http://127.0.0.1:1", Missing: evidence.PlatformUnsupported.Wrap(errors.New("this is SEV"))}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, err := broker.Open(tt.config, tt.collector)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := b.Resource(context.Background(), name); !errdefs.IsFailedPrecondition(err) {
				t.Errorf("Resource: %v, want failed precondition", err)
			} else if why := tt.config.Missing; why != nil && (evidence.CodeOf(err) != evidence.CodeOf(why) || !strings.Contains(err.Error(), "this is SEV")) {
				t.Errorf("Resource: %v, want why there is no platform", err)
			}
		})
	}
}
