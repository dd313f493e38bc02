package tee

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/measure"
	"github.com/coffer-cc/coffer/evidence/tpm"
)

// DefaultAKHandle is where guests with a TPM have their attestation key.
const DefaultAKHandle = 0x81010002

// tpmDevices are looked at in this order: through the kernel's resource manager
// first, as the others admit a single user.
var tpmDevices = []string{"/dev/tpmrm0", "/dev/tpm0", "/dev/tpm1", "/dev/tpm2"}

// AttestationKey returns the option to look for the key of a TPM elsewhere. An
// empty device and a zero handle stand for the usual places.
func AttestationKey(device string, handle uint32) Option {
	return func(h *host) { h.tpmDevice, h.tpmHandle = device, handle }
}

// tpm is a TPM 2.0 alone. It is the host's own in a virtual machine, so it
// proves no more than that host wants it to, unless the verifier knows its key.
func (h host) tpm() Driver {
	return Driver{
		Kind:           evidence.TPM,
		Signs:          fmt.Sprintf("an attestation key at %#x of %s", h.akHandle(), strings.Join(h.tpmPaths(), ", ")),
		HostControlled: true,
		Present:        func() bool { return h.findTPM() != "" },
		Open: func() (evidence.Collector, error) {
			return &tpmGuest{host: h, path: h.findTPM(), turn: newTurn()}, nil
		},
	}
}

func (h host) akHandle() uint32 { return cmp.Or(h.tpmHandle, DefaultAKHandle) }

func (h host) tpmPaths() []string {
	if h.tpmDevice != "" {
		return []string{h.tpmDevice}
	}
	return tpmDevices
}

// findTPM returns the device with the attestation key, "" without one.
func (h host) findTPM() string {
	for _, path := range h.tpmPaths() {
		d, err := h.openTPM(filepath.Join(h.root, path))
		if err != nil {
			continue
		}
		_, err = d.ReadPublic(h.akHandle())
		d.Close()
		if err == nil {
			return path
		}
	}
	return ""
}

// tpmGuest collects quotes. It opens the device for each: a TPM that failed once
// can work again, and others may use it in between.
type tpmGuest struct {
	host host
	path string
	turn turn
	log  *measure.Log // nil where nothing is recorded
}

// Kind is evidence.TPM.
func (t *tpmGuest) Kind() evidence.Kind { return evidence.TPM }

// Collect returns what Trustee reads (deps/verifier/src/tpm). The quote carries
// the first 32 bytes of the report data. Verifiers know RSA keys alone; of
// another the evidence is made all the same.
func (t *tpmGuest) Collect(ctx context.Context, rd evidence.ReportData) (e evidence.Evidence, err error) {
	if t.log == nil {
		e, err = t.collect(ctx, rd, nil)
	} else {
		err = t.log.View(func(recorded []byte) (err error) {
			e, err = t.collect(ctx, rd, recorded)
			return err
		})
	}
	if err != nil {
		return evidence.Evidence{}, fmt.Errorf("collect tpm evidence: %w", err)
	}
	return e, nil
}

func (t *tpmGuest) collect(ctx context.Context, rd evidence.ReportData, recorded []byte) (evidence.Evidence, error) {
	in := rd.Padded()
	q, err := useTPM(ctx, t, func(d *tpm.Device) (tpm.Quote, error) { return d.Quote(t.host.akHandle(), in[:32]) })
	if err != nil {
		return evidence.Evidence{}, evidence.DriverReply.Wrap(err)
	}
	data, err := tpmJSON(q, recorded)
	return evidence.Evidence{Kind: evidence.TPM, Data: data}, err
}

// tpmQuote is as upstream's attester writes it: bytes in standard base64, PCRs
// in hexadecimal.
type tpmQuote struct {
	Signature []byte   `json:"signature"`
	Message   []byte   `json:"message"`
	PCRs      []string `json:"pcrs"`
}

func tpmJSON(q tpm.Quote, recorded []byte) ([]byte, error) {
	public, err := x509.MarshalPKIXPublicKey(q.Key)
	if err != nil {
		return nil, fmt.Errorf("write the attestation key: %w", err)
	}
	pcrs := make([]string, len(q.PCRs))
	for i, v := range q.PCRs {
		pcrs[i] = hex.EncodeToString(v[:])
	}
	return json.Marshal(struct {
		Quote  tpmQuote `json:"tpm_quote"`
		Public []byte   `json:"ak_public"`
		// Trustee passes over it. The name is that of TDX.
		EventLog []byte `json:"cc_eventlog,omitempty"`
	}{tpmQuote{q.Marshalled, q.Message, pcrs}, public, recorded})
}

// useTPM opens the device for f, when it is the caller's turn.
func useTPM[T any](ctx context.Context, t *tpmGuest, f func(d *tpm.Device) (T, error)) (T, error) {
	return ask(ctx, t.turn, func() (v T, err error) {
		d, err := t.host.openTPM(filepath.Join(t.host.root, t.path))
		if err != nil {
			return v, evidence.DriverDevice.Wrap(err)
		}
		defer d.Close()
		return f(d)
	})
}
