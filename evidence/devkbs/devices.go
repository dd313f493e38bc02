package devkbs

import (
	"bytes"
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/coffer-cc/coffer/evidence"
)

// verifyDevices judges the statements of devices, a JSON object by kind in a
// text, and returns what a token says of them. They are bound to nonce and key
// as the platform is, which is bound to this text besides. Only sample devices
// are known here, and only where sample evidence is allowed.
func (s *Server) verifyDevices(text, nonce string, key *guestKey) (map[evidence.Kind]any, error) {
	if text == "" {
		return nil, nil
	}
	statements := make(map[evidence.Kind]struct {
		SVN        *string `json:"svn"`
		ReportData []byte  `json:"report_data"`
	})
	if err := decode(strings.NewReader(text), &statements); err != nil {
		return nil, refuseAttestation("evidence of devices is malformed")
	}
	digest, err := hashed(map[string]any{"nonce": nonce, "tee-pubkey": key.members})
	if err != nil {
		return nil, err
	}
	said := make(map[evidence.Kind]any)
	for kind, st := range statements {
		if kind != evidence.SampleDevice || !s.options.AllowSample {
			return nil, refuseAttestation(fmt.Sprintf("evidence of the device %.20q is not supported", kind))
		}
		if st.SVN == nil || !bytes.Equal(st.ReportData, digest) {
			return nil, refuseAttestation("REPORT_DATA is different from that in the evidence of a device")
		}
		said[kind] = map[string]any{"svn": *st.SVN, "report_data": st.ReportData}
	}
	return said, nil
}

// hashed is the digest of the JSON form with sorted members.
func hashed(v map[string]any) ([]byte, error) {
	text, err := json.Marshal(v)
	sum := sha512.Sum384(text)
	return sum[:], err
}
