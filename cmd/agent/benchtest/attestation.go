package main

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	benchRounds = "5"
	benchTimes  = "100x" // each first key leaves a connection until the end
)

// benchmark is a figure of a Go benchmark, which stands in the table because it
// has a goal or belongs to those that have.
type benchmark struct {
	what, unit string
	test, name string // program below options.tests, and the benchmark
	metric     string // its unit there
	scale      float64
	goal       goal
}

// proving are the costs of attestation but for the time that the platform takes
// to sign. The broker is that of the tests, on loopback in the same process.
var proving = []benchmark{
	{"attestation and first key, HTTP", "ms", "kbs", "FirstKey/plain", "ns/op", 1e-6, goal{atMost: 5}},
	{"attestation and first key, TLS", "ms", "kbs", "FirstKey/TLS", "ns/op", 1e-6, goal{atMost: 5}},
	{"next key, TLS", "ms", "kbs", "NextKey/TLS", "ns/op", 1e-6, goal{}},
	{"16 first keys at once, TLS", "ms", "kbs", "Crowd/TLS", "ns/op", 1e-6, goal{}},
	{"HTTP round trips, first key", "", "kbs", "FirstKey/TLS", "requests/op", 1, goal{atMost: 3}},
	{"HTTP round trips, next key", "", "kbs", "NextKey/TLS", "requests/op", 1, goal{atMost: 1}},
	{"attestations, 16 first keys at once", "", "kbs", "Crowd/TLS", "attestations/op", 1, goal{atMost: 1}},
	{"TDX quote, looked at by the guest", "allocs", "tee", "CheckQuote/5", "allocs/op", 1, goal{}},
	{"SNP report, looked at by the guest", "allocs", "tee", "Report/check", "allocs/op", 1, goal{}},
	{"SNP report, as JSON", "allocs", "tee", "Report/encode", "allocs/op", 1, goal{}},
	{"TDX quote, version 4, judged", "allocs", "verify", "Quote/tdx/tdx_quote_4.dat", "allocs/op", 1, goal{}},
	{"TDX quote, version 5, judged", "allocs", "verify", "Quote/tdx/tdx_quote_5.dat", "allocs/op", 1, goal{}},
	{"SNP report, judged", "allocs", "verify", "Report/snp/attestation.bin", "allocs/op", 1, goal{}},
	{"event log of 1 MiB, walked", "ms", "measure", "CCEL", "ns/op", 1e-6, goal{}},
}

// attestation runs the benchmarks and puts the medians of their rounds into the
// table.
func (b *bench) attestation() error {
	results := make(map[string]metrics)
	for _, p := range proving {
		if results[p.test] == nil {
			m, err := b.runBenchmarks(p.test)
			if err != nil {
				return err
			}
			results[p.test] = m
		}
		figures := results[p.test][p.name+" "+p.metric]
		if len(figures) == 0 {
			return fmt.Errorf("%s.test has no %s of %s", p.test, p.metric, p.name)
		}
		b.table.alone(p.what, p.unit, middle(figures)*p.scale, p.goal)
	}
	return nil
}

// metrics are the figures of all rounds, by benchmark and unit.
type metrics map[string][]float64

func (b *bench) runBenchmarks(test string) (metrics, error) {
	cmd := exec.CommandContext(b.ctx, filepath.Join(b.tests, test+".test"),
		"-test.run=^$", "-test.bench=.", "-test.benchtime="+benchTimes, "-test.count="+benchRounds)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s%s", cmd.Path, err, out, &said)
	}
	return parseBenchmarks(string(out)), nil
}

// parseBenchmarks reads lines "BenchmarkName-2  100  12 ns/op  3 allocs/op".
func parseBenchmarks(out string) metrics {
	m := make(metrics)
	for line := range strings.Lines(out) {
		words := strings.Fields(line)
		if len(words) < 4 || !strings.HasPrefix(words[0], "Benchmark") {
			continue
		}
		name := strings.TrimPrefix(words[0], "Benchmark")
		if i := strings.LastIndexByte(name, '-'); i > 0 {
			if _, err := strconv.Atoi(name[i+1:]); err == nil {
				name = name[:i] // the number of processors
			}
		}
		for i := 2; i+1 < len(words); i += 2 {
			if f, err := strconv.ParseFloat(words[i], 64); err == nil {
				m[name+" "+words[i+1]] = append(m[name+" "+words[i+1]], f)
			}
		}
	}
	return m
}
