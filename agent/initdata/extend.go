package initdata

import (
	"context"
	"crypto/sha256"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence/initdata"
)

// ExtendAnchor is PCR 8 of a TPM: zero after a reset of the machine, and an
// extension with the digest d makes it SHA-256(register ‖ d).
type ExtendAnchor interface {
	ReadAnchor(ctx context.Context) ([32]byte, error)
	ExtendAnchor(ctx context.Context, digest [32]byte) error
	// AnchorBinds is false where the register is the host's.
	AnchorBinds() bool
}

// extendAlgorithm is the one that fits the register. Verifiers compute its value
// from the digest that the document names.
const extendAlgorithm = "sha256"

// extend decides as admit does. The text is parsed after the extension: what
// was measured is then what is read, and a text that is no document ends the
// boot all the same.
func (b Binding) extend(ctx context.Context, raw []byte, device string) (*initdata.Document, error) {
	before, err := b.readAnchor(ctx)
	if err != nil {
		return nil, err
	}
	if b.Booted {
		err = wasExtended(before, raw, device)
	} else if before != [32]byte{} {
		err = refuse("PCR 8 is %x before the agent has extended it, and not zero as after a reset", before)
	}
	if err != nil || device == "" {
		return nil, err
	}
	if !b.Bound() && !b.AllowUnbound {
		return nil, fmt.Errorf("initdata on %s: %w", device,
			refuse("the TPM of the host cannot vouch for it, and the image does not say attestation.allow_unbound_initdata = true"))
	}
	if !b.Booted {
		if err := b.extendOnce(ctx, sha256.Sum256(raw)); err != nil {
			return nil, fmt.Errorf("initdata on %s: %w", device, err)
		}
	}
	d, err := initdata.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("initdata on %s: %w", device, err)
	}
	if d.Algorithm != extendAlgorithm {
		return nil, fmt.Errorf("initdata on %s: %w", device, refuse("it names %s, but PCR 8 takes its %s digest", d.Algorithm, extendAlgorithm))
	}
	return d, nil
}

// extendOnce sees afterwards that it was this extension and no other.
func (b Binding) extendOnce(ctx context.Context, digest [32]byte) error {
	if err := b.Extend.ExtendAnchor(ctx, digest); err != nil {
		return fmt.Errorf("PCR 8 cannot be extended: %w: %w", err, errdefs.ErrFailedPrecondition)
	}
	after, err := b.readAnchor(ctx)
	if err != nil {
		return err
	}
	if want := extendedOnce(digest); after != want {
		return refuse("PCR 8 is %x after its extension, and not %x", after, want)
	}
	return nil
}

// extendedOnce is the register after its only extension.
func extendedOnce(digest [32]byte) [32]byte {
	return sha256.Sum256(append(make([]byte, 32), digest[:]...))
}

// wasExtended compares the register with what the boot made of it.
func wasExtended(value [32]byte, raw []byte, device string) error {
	var want [32]byte
	if device != "" {
		want = extendedOnce(sha256.Sum256(raw))
	}
	if value != want {
		return refuse("PCR 8 is %x, and the document that is there now makes it %x", value, want)
	}
	return nil
}

func (b Binding) readAnchor(ctx context.Context) ([32]byte, error) {
	value, err := b.Extend.ReadAnchor(ctx)
	if err != nil {
		return value, fmt.Errorf("initdata cannot be compared with the TPM: %w: %w", err, errdefs.ErrFailedPrecondition)
	}
	return value, nil
}
