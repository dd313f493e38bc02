package measure

import (
	"crypto/sha512"
	"fmt"

	"github.com/containerd/errdefs"
)

// Replay computes what the events make of the runtime registers, which start
// at zero. An event for another register, or without a SHA-384 digest, wraps
// errdefs.ErrInvalidArgument.
func Replay(events []Event) (rtmr [TDXRegisters][48]byte, err error) {
	for i, e := range events {
		if !e.Measured() {
			continue
		}
		digest := e.Digests[SHA384]
		if e.Register < 1 || e.Register > TDXRegisters || digest == nil {
			return rtmr, fmt.Errorf("replay event %d: no SHA-384 digest for a runtime register: %w", i, errdefs.ErrInvalidArgument)
		}
		rtmr[e.Register-1] = Extended(rtmr[e.Register-1], digest)
	}
	return rtmr, nil
}

// Extended is what a register holds after digest was extended into it.
func Extended(register [48]byte, digest []byte) [48]byte {
	return sha512.Sum384(append(register[:], digest...))
}
