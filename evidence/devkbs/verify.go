package devkbs

import (
	"bytes"
	"encoding/json"

	"github.com/coffer-cc/coffer/evidence"
)

// verify judges evidence by platform and returns what a token says about it.
// A platform that cannot be verified is refused.
func (s *Server) verify(tee evidence.Kind, data json.RawMessage, digest []byte) (map[string]any, error) {
	switch {
	case tee == evidence.Sample && s.options.AllowSample:
		return verifySample(data, digest)
	case tee == evidence.Sample:
		return nil, refuseAttestation("sample evidence is not allowed")
	}
	return nil, refuseAttestation("evidence of this platform cannot be verified")
}

// verifySample compares the report data; there is nothing else to it.
func verifySample(data json.RawMessage, digest []byte) (map[string]any, error) {
	var quote struct {
		SVN        *string `json:"svn"`
		ReportData []byte  `json:"report_data"`
	}
	if err := json.Unmarshal(data, &quote); err != nil || quote.SVN == nil {
		return nil, refuseAttestation("sample evidence is malformed")
	}
	if !bytes.Equal(quote.ReportData, digest) {
		return nil, refuseAttestation("REPORT_DATA is different from that in the evidence")
	}
	return map[string]any{
		"svn":              *quote.SVN,
		"report_data":      quote.ReportData,
		"launch_digest":    "abcde",
		"platform_version": map[string]int{"major": 1, "minor": 4},
		"debug":            false,
	}, nil
}
