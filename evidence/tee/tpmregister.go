package tee

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/measure"
	"github.com/coffer-cc/coffer/evidence/tpm"
)

// initdataPCR is the one that verifiers look for the initdata in.
const initdataPCR = 8

// ReadAnchor returns PCR 8.
func (t *tpmGuest) ReadAnchor(ctx context.Context) ([32]byte, error) { return t.pcr(ctx, initdataPCR) }

// ExtendAnchor extends PCR 8.
func (t *tpmGuest) ExtendAnchor(ctx context.Context, digest [32]byte) error {
	return t.extend(ctx, initdataPCR, digest)
}

// AnchorBinds is false: the TPM is the host's.
func (t *tpmGuest) AnchorBinds() bool { return false }

// OpenLog opens the log of what happens at run time, which goes along with
// evidence from then on: it has to be called before the first Collect.
func (t *tpmGuest) OpenLog(dir string) (*measure.Log, error) {
	log, err := measure.OpenLog(dir, measure.TPM(runtimePCRs{t}))
	t.log = log
	return log, evidence.DriverEventLog.Wrap(err)
}

func (t *tpmGuest) pcr(ctx context.Context, index int) ([32]byte, error) {
	return useTPM(ctx, t, func(d *tpm.Device) ([32]byte, error) { return d.ReadPCR(index) })
}

func (t *tpmGuest) extend(ctx context.Context, index int, digest [32]byte) error {
	_, err := useTPM(ctx, t, func(d *tpm.Device) (struct{}, error) { return struct{}{}, d.Extend(index, digest) })
	return err
}

// pcrAccess is a platform with PCRs.
type pcrAccess interface {
	pcr(ctx context.Context, index int) ([32]byte, error)
	extend(ctx context.Context, index int, digest [32]byte) error
}

// runtimePCRs are the registers of a runtime log.
type runtimePCRs struct{ pcrAccess }

// RTMR returns the value of the PCR.
func (r runtimePCRs) RTMR(index int) ([]byte, error) {
	v, err := r.pcr(context.Background(), index)
	return v[:], err
}

// Extend extends the PCR.
func (r runtimePCRs) Extend(index int, digest []byte) error {
	if len(digest) != 32 {
		return fmt.Errorf("extend PCR %d with %d bytes: %w", index, len(digest), errdefs.ErrInvalidArgument)
	}
	return r.extend(context.Background(), index, [32]byte(digest))
}
