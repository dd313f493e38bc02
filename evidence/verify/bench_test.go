package verify_test

import (
	"testing"

	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/verify"
)

// BenchmarkQuote judges recorded quotes, signature and chain included.
func BenchmarkQuote(b *testing.B) {
	for _, c := range quotes {
		b.Run(c.file, func(b *testing.B) {
			raw := evidencetest.Fixture(b, c.file)
			o := verify.Options{Now: day(c.at)}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := verify.Quote(raw, o); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkReport judges recorded reports.
func BenchmarkReport(b *testing.B) {
	for _, c := range reports {
		b.Run(c.file, func(b *testing.B) {
			raw := evidencetest.Fixture(b, c.file)[c.skip:]
			raw = raw[:1184]
			certs, o := verify.Certs{VEK: der(b, c.vek)}, verify.Options{Now: day(c.at)}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := verify.Report(raw, certs, o); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
