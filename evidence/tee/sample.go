package tee

import (
	"context"
	"encoding/json"

	"github.com/coffer-cc/coffer/evidence"
)

// Sample returns a collector whose evidence proves nothing: anyone can write
// it. It serves tests and demonstrations, and is reached only by naming it.
func Sample() evidence.Collector { return sample{} }

type sample struct{}

// Kind is evidence.Sample.
func (sample) Kind() evidence.Kind { return evidence.Sample }

// Collect echoes the report data as given, without padding, which is what the
// sample verifier of Trustee compares (deps/verifier/src/sample).
func (sample) Collect(_ context.Context, rd evidence.ReportData) (evidence.Evidence, error) {
	data, err := json.Marshal(struct {
		SVN        string `json:"svn"`
		ReportData []byte `json:"report_data"` // standard base64 with padding
	}{"1", rd.Bytes()})
	return evidence.Evidence{Kind: evidence.Sample, Data: data}, err
}
