package tee

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence"
)

// se is Secure Execution of IBM Z. The firmware of the machine says whether
// this guest runs under it; the device alone is there on hosts too.
func (h host) se() Driver {
	return Driver{
		Kind:    evidence.SE,
		Signs:   "/sys/firmware/uv/prot_virt_guest",
		Present: func() bool { return h.says("sys/firmware/uv/prot_virt_guest", "1") },
		Open:    func() (evidence.Collector, error) { return &seGuest{host: h, turn: newTurn()}, nil },
	}
}

// seGuest asks the ultravisor for measurements. What the owner of the image put
// into its header is measured, but the kernel shows none of it to the guest, so
// there is no launch anchor.
type seGuest struct {
	host host
	turn turn
}

// Kind is evidence.SE.
func (*seGuest) Kind() evidence.Kind { return evidence.SE }

// Collect fails: the measurement answers a request of the verifier.
func (*seGuest) Collect(context.Context, evidence.ReportData) (evidence.Evidence, error) {
	return evidence.Evidence{}, fmt.Errorf("collect se evidence: it answers the challenge of a verifier, and there is none: %w", errdefs.ErrFailedPrecondition)
}

// seRequest is the challenge of Trustee (deps/verifier/src/se), JSON with
// standard base64. The ultravisor alone can read the blob.
type seRequest struct {
	Blob           []byte `json:"request_blob"`
	Measurement    uint32 `json:"measurement_size"`
	Additional     uint32 `json:"additional_size"`
	MeasurementKey []byte `json:"encr_measurement_key"`
	RequestNonce   []byte `json:"encr_request_nonce"`
	HeaderTags     []byte `json:"image_hdr_tags"`
}

// seResponse is what Trustee reads. The last three are the verifier's own, which
// keeps no state of its request.
type seResponse struct {
	Measurement    []byte `json:"measurement"`
	Additional     []byte `json:"additional_data"`
	UserData       []byte `json:"user_data"`
	ConfigUID      []byte `json:"cuid"`
	MeasurementKey []byte `json:"encr_measurement_key"`
	RequestNonce   []byte `json:"encr_request_nonce"`
	HeaderTags     []byte `json:"image_hdr_tags"`
}

// Bounds of a request, the first two those of the kernel.
const (
	seMaxBlob   = 1 << 20 // UVIO_ATT_ARCB_MAX_LEN
	seMaxOutput = 0x8000  // UVIO_ATT_MEASUREMENT_MAX_LEN, UVIO_ATT_ADDITIONAL_MAX_LEN
	seMaxSealed = 2048    // a key and a nonce, encrypted by the verifier for itself with RSA
	seTagsSize  = 3*64 + 16
)

// parseSERequest reads the challenge and wraps errdefs.ErrInvalidArgument
// where it is no such request.
func parseSERequest(challenge string) (seRequest, error) {
	var r seRequest
	if err := json.Unmarshal([]byte(challenge), &r); err != nil {
		return r, fmt.Errorf("challenge is no request for Secure Execution: %w", errdefs.ErrInvalidArgument)
	}
	for _, f := range []struct {
		name             string
		size, least, max int
	}{
		{"request_blob", len(r.Blob), 1, seMaxBlob},
		{"measurement_size", int(r.Measurement), 1, seMaxOutput},
		{"additional_size", int(r.Additional), 1, seMaxOutput},
		{"encr_measurement_key", len(r.MeasurementKey), 1, seMaxSealed},
		{"encr_request_nonce", len(r.RequestNonce), 1, seMaxSealed},
		{"image_hdr_tags", len(r.HeaderTags), seTagsSize, seTagsSize},
	} {
		if f.size < f.least || f.size > f.max {
			return r, fmt.Errorf("challenge: %s: %d is not from %d to %d: %w", f.name, f.size, f.least, f.max, errdefs.ErrInvalidArgument)
		}
	}
	return r, nil
}

// CollectFor has the ultravisor answer the challenge. Report data, filled to 64
// bytes, go in as user data, which the measurement covers.
func (s *seGuest) CollectFor(ctx context.Context, challenge string, rd evidence.ReportData) (evidence.Evidence, error) {
	req, err := parseSERequest(challenge)
	if err != nil {
		return evidence.Evidence{}, evidence.TransportReply.Wrap(fmt.Errorf("collect se evidence: %w", err))
	}
	user := rd.Padded()
	m, err := ask(ctx, s.turn, func() (uvMeasurement, error) { return s.host.measureUV(req, user) })
	if err != nil {
		return evidence.Evidence{}, fmt.Errorf("collect se evidence: %w", err)
	}
	data, err := json.Marshal(seResponse{
		Measurement: m.measurement, Additional: m.additional, UserData: user[:], ConfigUID: m.configUID[:],
		MeasurementKey: req.MeasurementKey, RequestNonce: req.RequestNonce, HeaderTags: req.HeaderTags,
	})
	return evidence.Evidence{Kind: evidence.SE, Data: data}, err
}
