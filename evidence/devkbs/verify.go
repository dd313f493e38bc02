package devkbs

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/initdata"
	"github.com/coffer-cc/coffer/evidence/verify"
)

// verify judges evidence by platform: that the platform signed it, that it is
// bound to digest, and that the initdata, if any was sent, is what the platform
// was launched with. A platform that cannot be verified is refused.
func (s *Server) verify(tee evidence.Kind, data json.RawMessage, digest []byte, doc *initdata.Document) (*verify.Statement, error) {
	if tee == evidence.Sample {
		return s.verifySample(data, digest, doc)
	}
	st, err := s.verifyHardware(tee, data, digest, doc)
	if err != nil {
		return nil, err
	}
	st.Unbound = st.HostControlled || evidence.Evidence{Data: data}.SaysUnbound()
	return st, nil
}

func (s *Server) verifyHardware(tee evidence.Kind, data json.RawMessage, digest []byte, doc *initdata.Document) (*verify.Statement, error) {
	st, err := verify.Evidence(tee, data, s.options.Verify)
	if err != nil {
		return nil, refuseAttestation(err.Error())
	}
	if !st.Carries(digest) {
		return nil, refuseAttestation("REPORT_DATA is different from that in the evidence")
	}
	if doc != nil && !st.BootedWith(doc.Digest()) {
		return nil, refuseAttestation("init-data is not what the guest was launched with")
	}
	return st, nil
}

// verifySample compares the report data; there is nothing else to it. What the
// guest says of its initdata is believed, as everything else is.
func (s *Server) verifySample(data json.RawMessage, digest []byte, doc *initdata.Document) (*verify.Statement, error) {
	if !s.options.AllowSample {
		return nil, refuseAttestation("sample evidence is not allowed")
	}
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
	st := &verify.Statement{
		TEE: evidence.Sample, Unbound: true, ReportData: [64]byte(initdata.Pad(digest, 64)),
		Facts: []verify.Fact{{Name: "svn", Value: *quote.SVN}},
	}
	if doc != nil {
		st.InitData = doc.Digest()
	}
	return st, nil
}

// claims is what a token says of the evidence.
func claims(st *verify.Statement) map[string]any {
	c := make(map[string]any)
	for _, f := range st.Facts {
		c[f.Name] = f.Value
	}
	c["debug"] = st.Debug
	if st.Unbound {
		c["initdata"] = "unbound"
	}
	if st.TEE == evidence.Sample {
		c["init_data"] = hex.EncodeToString(st.InitData)
		c["report_data"] = base64.StdEncoding.EncodeToString(st.ReportData[:48])
		c["launch_digest"] = "abcde"
		c["platform_version"] = map[string]int{"major": 1, "minor": 4}
		return c
	}
	c["report_data"] = hex.EncodeToString(st.ReportData[:])
	c["init_data"] = hex.EncodeToString(st.InitData)
	if st.PCR != nil {
		pcrs := make(map[string]string, len(st.PCR))
		for i, r := range st.PCR {
			pcrs[fmt.Sprintf("pcr%02d", i)] = hex.EncodeToString(r[:])
		}
		c["tpm"] = pcrs
	}
	if !st.HostControlled {
		c["measurement"] = hex.EncodeToString(st.Measurement[:])
	}
	if st.TEE == evidence.TDX || st.TEE == evidence.AzTDX {
		rtmr := make([]string, len(st.RTMR))
		for i, r := range st.RTMR {
			rtmr[i] = hex.EncodeToString(r[:])
		}
		c["rtmr"] = rtmr
	}
	return c
}
