package tee

import (
	"context"
	"encoding/json"

	"github.com/coffer-cc/coffer/evidence"
)

// SampleDevice returns a device whose statements prove nothing. Like Sample it
// is reached only by naming it.
func SampleDevice() evidence.Collector { return sampleDevice{} }

type sampleDevice struct{}

// Kind is evidence.SampleDevice.
func (sampleDevice) Kind() evidence.Kind { return evidence.SampleDevice }

// Collect echoes the report data as given, which is what the sample verifier of
// Trustee compares (deps/verifier/src/sample_device).
func (sampleDevice) Collect(_ context.Context, rd evidence.ReportData) (evidence.Evidence, error) {
	data, err := json.Marshal(struct {
		SVN        string `json:"svn"`
		ReportData []byte `json:"report_data"`
	}{"2", rd.Bytes()})
	return evidence.Evidence{Kind: evidence.SampleDevice, Data: data}, err
}
