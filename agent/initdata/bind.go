package initdata

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence/initdata"
)

// Anchor is the platform's register that was filled when the guest was
// launched. Its length is the size of the register. The value must not have
// come by way of the host.
type Anchor interface {
	LaunchAnchor(ctx context.Context) ([]byte, error)
}

// Binding is how a document is told from a forged one.
type Binding struct {
	// Anchor is nil on a platform that has none, and so is Extend. Without
	// either a document can be the host's own as well as the owner's.
	Anchor Anchor
	Extend ExtendAnchor // where there is no Anchor
	// AllowUnbound accepts such a document. Only the image may say so.
	AllowUnbound bool
	// Booted compares with what the boot has left in a register to extend, and
	// extends nothing. It is for whoever looks at a guest that runs.
	Booted bool
}

// Bound reports whether hardware vouches for a document that Load returns.
func (b Binding) Bound() bool {
	return b.Anchor != nil || b.Extend != nil && b.Extend.AnchorBinds()
}

// algorithms are those that a document may name.
var algorithms = []string{"sha256", "sha384", "sha512"}

// Load finds the document, compares it with the hardware, and only then reads
// what it says. It returns nil where there is none and the hardware agrees.
// Any error means that the guest must not start:
//
//	document   register   outcome
//	none       zero       nil
//	none       other      refused: the host keeps the document back
//	there      its digest the document
//	there      zero       refused: the guest was launched without one
//	there      other      refused: it is another document
//	any        unreadable refused
//	none       no such    nil
//	there      no such    the document with AllowUnbound, else refused
//
// Where the register is one to extend, Load does that before it parses. It works
// once after a reset of the machine, since the register is not zero then:
//
//	document   register   outcome
//	none       zero       nil, and it stays zero
//	there      zero       extended with the SHA-256 digest, then the document,
//	                      which must name sha256
//	there      zero       of the host's own TPM: the same with AllowUnbound, else refused
//	any        other      refused: somebody was here before
//	any        unreadable refused
//	there      differs    after the extension: refused
func Load(ctx context.Context, devRoot string, b Binding) (*initdata.Document, error) {
	raw, device, err := Find(ctx, devRoot)
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, anchorTime)
	defer cancel()
	return b.admit(ctx, raw, device)
}

// anchorTime is how long the platform may take, since a host that does not answer
// for it must not hold the boot. It leaves Kata's Go shim, which by default dials
// for 30 seconds, time to hear the reason.
const anchorTime = 20 * time.Second

// admit decides over the text that was found on device, "" for none.
func (b Binding) admit(ctx context.Context, raw []byte, device string) (*initdata.Document, error) {
	if b.Anchor == nil && b.Extend != nil {
		return b.extend(ctx, raw, device)
	}
	register, err := b.register(ctx)
	if err != nil {
		return nil, err
	}
	if device == "" {
		if register != nil && !zero(register) {
			return nil, refuse("no disk carries initdata, but the guest was launched with the digest %x", register)
		}
		return nil, nil
	}
	fits, err := b.compare(raw, register)
	if err != nil {
		return nil, fmt.Errorf("initdata on %s: %w", device, err)
	}
	d, err := initdata.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("initdata on %s: %w", device, err)
	}
	if register != nil && d.Algorithm != fits {
		return nil, fmt.Errorf("initdata on %s: %w", device, refuse("it names %s, but the guest was launched with its %s digest", d.Algorithm, fits))
	}
	return d, nil
}

// register is nil where the platform has none.
func (b Binding) register(ctx context.Context) ([]byte, error) {
	if b.Anchor == nil {
		return nil, nil
	}
	register, err := b.Anchor.LaunchAnchor(ctx)
	if err == nil && len(register) == 0 {
		err = errors.New("it is empty")
	}
	if err != nil {
		return nil, fmt.Errorf("initdata cannot be compared with the hardware: %w: %w", err, errdefs.ErrFailedPrecondition)
	}
	return register, nil
}

// compare returns the algorithm whose digest of raw stands in the register.
// Nothing in raw is interpreted for that: all algorithms are tried.
func (b Binding) compare(raw, register []byte) (algorithm string, err error) {
	if register == nil {
		if !b.AllowUnbound {
			return "", refuse("this platform cannot vouch for it, and the image does not say attestation.allow_unbound_initdata = true")
		}
		return "", nil
	}
	if zero(register) {
		return "", refuse("the guest was launched without initdata")
	}
	for _, a := range algorithms {
		digest, err := initdata.Digest(a, raw)
		if err != nil {
			return "", err
		}
		if bytes.Equal(initdata.Pad(digest, len(register)), register) {
			return a, nil
		}
	}
	sum, err := initdata.Digest("sha256", raw)
	if err != nil {
		return "", err
	}
	return "", refuse("the guest was launched with the digest %x, which is not its own (sha256 %x)", register, sum)
}

func zero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

func refuse(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrFailedPrecondition)...)
}
