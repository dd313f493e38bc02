package tee

import (
	"encoding/hex"
	"encoding/json"

	"github.com/coffer-cc/coffer/evidence"
)

// decodeSE shows the little that is readable: the measurement is a MAC with a
// key of the verifier, over the image's header among others.
func decodeSE(data []byte) ([]Field, error) {
	var e seResponse
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, undecodable(evidence.SE, notJSON)
	}
	const sealed = "the verifier alone can tell"
	return []Field{
		{"tee", string(evidence.SE)},
		{"report_data", hex.EncodeToString(e.UserData)},
		{"measurement", hex.EncodeToString(e.Measurement)},
		{"initdata", unknown("the measured header is not shown to the guest")},
		{"debug", unknown(sealed)},
		{"smt", unknown("Secure Execution does not tell")},
		{"tcb", unknown(sealed)},
		{"config_uid", hex.EncodeToString(e.ConfigUID)},
		{"additional_data", hex.EncodeToString(e.Additional)},
		{"image_hdr_tags", hex.EncodeToString(e.HeaderTags)},
	}, nil
}
