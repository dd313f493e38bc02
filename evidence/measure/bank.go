package measure

import (
	"crypto"
	_ "crypto/sha256" // for crypto.SHA256
	_ "crypto/sha512" // for crypto.SHA384
	"fmt"

	"github.com/containerd/errdefs"
)

// RuntimeRegisters are those of a platform, by their index in a Bank.
// Extending one is what makes it the hash of what it was and the digest.
type RuntimeRegisters interface {
	RTMR(index int) ([]byte, error)
	Extend(index int, digest []byte) error
}

// A Bank is a set of registers, and how the log speaks of them.
type Bank struct {
	Registers RuntimeRegisters
	Count     int         // of registers
	Hash      crypto.Hash // SHA-384 for TDX, SHA-256 for a TPM
	// Index maps the number of a PCR, which callers and settings use on every
	// platform, to an index in Registers.
	Index func(pcr uint32) int
	// Takes says why a register cannot hold a record; nil where all can.
	Takes func(index int) error
	// Shift is what the number of a register in the log is above its index.
	Shift int
}

// TDXRegisters is how many RTMRs there are.
const TDXRegisters = 4

// TDX is the bank of RTMRs. Verifiers number them from 1 in a log (CCMR), and
// map PCRs to them as UEFI 2.10 does in section 38.4.1.
func TDX(r RuntimeRegisters) Bank {
	return Bank{Registers: r, Count: TDXRegisters, Hash: crypto.SHA384, Index: func(pcr uint32) int { return int(ccmr(pcr)) - 1 }, Shift: 1}
}

// ccmr maps PCRs above 15, which have no meaning there, to the last register,
// and also 0, which measures the firmware itself: no caller has business there.
func ccmr(pcr uint32) uint32 {
	switch {
	case pcr == 1 || pcr == 7:
		return 1
	case pcr >= 2 && pcr <= 6:
		return 2
	case pcr >= 8 && pcr <= 15:
		return 3
	}
	return 4
}

// Of the PCRs of a TPM those from 0 to 7 are the firmware's, 8 is the initdata's
// and 10 the kernel's (IMA); 16 and 23 can be reset by any program; and those
// between need a locality that software does not have (TCG, PC Client Platform
// TPM Profile, 4.7.2).
const firstPCR, imaPCR, lastPCR = 9, 10, 15

// TPM is the bank of a TPM's PCRs, which a log numbers as they are.
func TPM(r RuntimeRegisters) Bank {
	return Bank{
		Registers: r, Count: 24, Hash: crypto.SHA256,
		Index: func(pcr uint32) int { return int(pcr) },
		Takes: func(index int) error {
			if index < firstPCR || index == imaPCR || index > lastPCR {
				return fmt.Errorf("PCR %d of a TPM cannot keep a record, choose eventlog_config.init_pcr from %d to %d but not %d: %w",
					index, firstPCR, lastPCR, imaPCR, errdefs.ErrInvalidArgument)
			}
			return nil
		},
	}
}

// algorithm is the TCG number of the hash.
func (b Bank) algorithm() uint16 {
	if b.Hash == crypto.SHA256 {
		return 0x0b
	}
	return 0x0c
}

func (b Bank) hash(data ...[]byte) []byte {
	h := b.Hash.New()
	for _, d := range data {
		h.Write(d)
	}
	return h.Sum(nil)
}
