package kbs_test

import (
	"log/slog"
	"testing"

	"github.com/coffer-cc/coffer/evidence/devkbs"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/kbs"
)

// transports are the ways to a broker on this machine.
var transports = map[string]func(testing.TB, devkbs.Options) *evidencetest.KBS{
	"plain": evidencetest.NewKBS, "TLS": evidencetest.NewTLSKBS,
}

// onEach measures with both transports, against a broker on loopback in the
// same process. The platform is the sample one, whose statement takes no time.
// What prepare returns is measured.
func onEach(b *testing.B, prepare func(*testing.B, *evidencetest.KBS) func()) {
	old := slog.Default()
	slog.SetDefault(slog.New(slog.DiscardHandler))
	defer slog.SetDefault(old)
	for _, transport := range []string{"plain", "TLS"} {
		b.Run(transport, func(b *testing.B) {
			k := transports[transport](b, options())
			count := countTrips(k)
			measured := prepare(b, k)
			count.since()
			b.ReportAllocs()
			for b.Loop() {
				measured()
			}
			requests, attests := count.since()
			b.ReportMetric(float64(requests)/float64(b.N), "requests/op")
			b.ReportMetric(float64(attests)/float64(b.N), "attestations/op")
		})
	}
}

// BenchmarkFirstKey is what a guest that has just started waits for: the
// connection, the attestation and the key.
func BenchmarkFirstKey(b *testing.B) {
	onEach(b, func(b *testing.B, k *evidencetest.KBS) func() {
		return func() { wantContents(b, newClient(b, kbs.Config{URL: k.URL, Cert: k.Cert})) }
	})
}

// BenchmarkNextKey is a key for a guest that has attested.
func BenchmarkNextKey(b *testing.B) {
	onEach(b, func(b *testing.B, k *evidencetest.KBS) func() {
		c := newClient(b, kbs.Config{URL: k.URL, Cert: k.Cert})
		wantContents(b, c)
		return func() { wantContents(b, c) }
	})
}

// BenchmarkCrowd is the first key for sixteen containers at once.
func BenchmarkCrowd(b *testing.B) {
	onEach(b, func(b *testing.B, k *evidencetest.KBS) func() {
		return func() { fetchAll(b, newClient(b, kbs.Config{URL: k.URL, Cert: k.Cert})) }
	})
}
