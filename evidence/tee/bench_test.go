package tee

import (
	"testing"

	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/verify"
)

// BenchmarkCheckQuote is what the agent looks at in a quote before it sends it.
func BenchmarkCheckQuote(b *testing.B) {
	for name, body := range map[string]int{"4": quoteHeader, "5": quoteHeader + quoteBodyHead} {
		b.Run(name, func(b *testing.B) {
			quote := evidencetest.Fixture(b, "tdx/tdx_quote_"+name+".dat")
			in := [64]byte(quote[body+bodyReportData:])
			b.ReportAllocs()
			for b.Loop() {
				if err := checkQuote(quote, in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkReport takes a report apart and writes it as JSON.
func BenchmarkReport(b *testing.B) {
	raw, _, err := verify.Decompose(evidencetest.Fixture(b, "snp/evidence-genoa-trustee.json"))
	if err != nil {
		b.Fatal(err)
	}
	in := [64]byte(raw[0x50:])
	b.Run("check", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			report, err := parseReport(raw)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := report.fields(in); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := (statement{report: raw}).encode(in); err != nil {
				b.Fatal(err)
			}
		}
	})
}
