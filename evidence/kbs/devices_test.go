package kbs_test

import (
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/kbs"
	"github.com/coffer-cc/coffer/evidence/tee"
)

// attested is the body of an attestation, as far as it matters here.
type attested struct {
	Runtime  map[string]any `json:"runtime-data"`
	Evidence struct {
		Primary    signed `json:"primary_evidence"`
		Additional string `json:"additional_evidence"`
	} `json:"tee-evidence"`
}

// signed is sample evidence.
type signed struct {
	ReportData string `json:"report_data"`
}

// sum hashes the canonical form of v. Maps are encoded in the order of keys.
func sum(t *testing.T, v map[string]any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha512.Sum384(text)
	return base64.StdEncoding.EncodeToString(digest[:])
}

// Devices sign nonce and key, and the platform signs those and their statements.
func TestDevicesAreBound(t *testing.T) {
	k := evidencetest.NewKBS(t, options())
	var text []byte
	k.Intercept(rewrite("/attest", func(s string) string {
		text = []byte(s)
		return s
	}))
	gpu := &evidencetest.Collector{Inner: tee.SampleDevice(), As: evidence.NVIDIA}
	c := newClient(t, kbs.Config{URL: k.URL, Devices: []evidence.Collector{tee.SampleDevice(), gpu}})
	_, _ = c.Resource(ctx, name) // whether the broker accepts them is its own affair
	var body attested
	if err := json.Unmarshal(text, &body); err != nil {
		t.Fatal(err)
	}
	var devices map[string]signed
	if err := json.Unmarshal([]byte(body.Evidence.Additional), &devices); err != nil || len(devices) != 2 {
		t.Fatalf("additional evidence %s: %v", body.Evidence.Additional, err)
	}
	want := sum(t, map[string]any{"nonce": body.Runtime["nonce"], "tee-pubkey": body.Runtime["tee-pubkey"]})
	for kind, d := range devices {
		if d.ReportData != want {
			t.Errorf("%s signs %s, want %s", kind, d.ReportData, want)
		}
	}
	want = sum(t, map[string]any{"nonce": body.Runtime["nonce"], "tee-pubkey": body.Runtime["tee-pubkey"],
		"additional-evidence": body.Evidence.Additional})
	if got := body.Evidence.Primary.ReportData; got != want {
		t.Errorf("the platform signs %s, want %s", got, want)
	}
}

// The broker accepts a sample device, and nothing that was changed on the way.
func TestDevicesAreJudged(t *testing.T) {
	for what, tc := range map[string]struct {
		change func(string) string
		want   error
	}{
		"as sent":          {func(s string) string { return s }, nil},
		"left out":         {func(string) string { return "" }, kbs.ErrAttestation},
		"another device":   {func(s string) string { return strings.Replace(s, "sampledevice", "nvidia", 1) }, kbs.ErrAttestation},
		"another binding":  {func(s string) string { return strings.Replace(s, `"report_data":"`, `"report_data":"AAAA`, 1) }, kbs.ErrAttestation},
		"another firmware": {func(s string) string { return strings.Replace(s, `"2"`, `"3"`, 1) }, kbs.ErrAttestation},
		"no JSON":          {func(s string) string { return s + "}" }, kbs.ErrAttestation},
	} {
		t.Run(what, func(t *testing.T) {
			k := evidencetest.NewKBS(t, options())
			k.Intercept(rewrite("/attest", func(s string) string {
				var body map[string]map[string]any
				if err := json.Unmarshal([]byte(s), &body); err != nil {
					t.Error(err)
				}
				said := body["tee-evidence"]
				said["additional_evidence"] = tc.change(said["additional_evidence"].(string))
				out, _ := json.Marshal(body)
				return string(out)
			}))
			c := newClient(t, kbs.Config{URL: k.URL, Devices: []evidence.Collector{tee.SampleDevice()}})
			if _, err := c.Resource(ctx, name); !errors.Is(err, tc.want) {
				t.Errorf("Resource: %v, want %v", err, tc.want)
			}
		})
	}
}

func TestDevicesThatFail(t *testing.T) {
	k := evidencetest.NewKBS(t, options())
	broken := &evidencetest.Collector{Inner: tee.SampleDevice(), As: evidence.NVIDIA, Err: errdefs.ErrUnavailable}
	odd := &evidencetest.Collector{Inner: tee.SampleDevice(), As: "odd", Corrupt: func(json.RawMessage) json.RawMessage {
		return json.RawMessage("{\"a\":\"\u2028\"}")
	}}
	c := newClient(t, kbs.Config{URL: k.URL, Devices: []evidence.Collector{tee.SampleDevice(), broken, odd}})
	_, err := c.Resource(ctx, name)
	if !errdefs.IsUnavailable(err) {
		t.Fatalf("Resource: %v, want the device's error", err)
	}
	for _, want := range []string{"device 1 (nvidia)", "device 2 (odd)"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not name %s", err, want)
		}
	}
	if strings.Contains(err.Error(), "device 0") || k.Count("attest") != 0 {
		t.Errorf("error %v, %d attestations", err, k.Count("attest"))
	}
}

func TestTwoDevicesOfAKind(t *testing.T) {
	_, err := kbs.New(kbs.Config{URL: "http://k", Collector: tee.Sample(), Devices: []evidence.Collector{tee.SampleDevice(), tee.SampleDevice()}})
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "device 1") {
		t.Errorf("New: %v", err)
	}
}
