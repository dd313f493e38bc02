package tpm

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/google/go-tpm/tpm2"
)

// PCRs is how many platform configuration registers there are.
const PCRs = 24

// Digest is one of SHA-256, as every PCR of that bank holds.
type Digest = [32]byte

// Values are those of all PCRs.
type Values = [PCRs]Digest

// ReadPCR returns the value of a PCR.
func (d *Device) ReadPCR(index int) (Digest, error) {
	if index < 0 || index >= PCRs {
		return Digest{}, noPCR(index)
	}
	values, err := ask(d, func(l *link) (Values, error) { return readPCRs(l, 1<<index) })
	return values[index], err
}

// Extend makes the PCR the hash of what it was and the digest. Only the SHA-256
// bank changes.
func (d *Device) Extend(index int, digest Digest) error {
	if index < 0 || index >= PCRs {
		return noPCR(index)
	}
	_, err := ask(d, func(l *link) (*tpm2.PCRExtendResponse, error) {
		return tpm2.PCRExtend{
			PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(index), Auth: tpm2.PasswordAuth(nil)},
			Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: digest[:]}}},
		}.Execute(l)
	})
	if err != nil {
		return fmt.Errorf("extend PCR %d: %w", index, err)
	}
	return nil
}

func noPCR(index int) error {
	return fmt.Errorf("PCR %d, of 0 to %d: %w", index, PCRs-1, errdefs.ErrInvalidArgument)
}

// allPCRs has a bit for each.
const allPCRs = 1<<PCRs - 1

// mask selects PCRs of the SHA-256 bank, bit n for PCR n.
func selection(mask uint32) tpm2.TPMLPCRSelection {
	bitmap := binary.LittleEndian.AppendUint32(nil, mask)[:PCRs/8]
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgSHA256, PCRSelect: bitmap}}}
}

// maskOf is the other direction. It refuses any other bank.
func maskOf(list tpm2.TPMLPCRSelection) (uint32, error) {
	if len(list.PCRSelections) != 1 {
		return 0, malformed("PCRs of %d banks", len(list.PCRSelections))
	}
	s := list.PCRSelections[0]
	if s.Hash != tpm2.TPMAlgSHA256 || len(s.PCRSelect) != PCRs/8 {
		return 0, malformed("PCRs of the bank %#x, %d of them", s.Hash, 8*len(s.PCRSelect))
	}
	return binary.LittleEndian.Uint32(append(slices.Clone(s.PCRSelect), 0)), nil
}

// readPCRs reads those of the mask, for which a TPM needs several answers.
func readPCRs(l *link, mask uint32) (values Values, err error) {
	for mask != 0 {
		r, err := tpm2.PCRRead{PCRSelectionIn: selection(mask)}.Execute(l)
		if err != nil {
			return values, fmt.Errorf("read PCRs: %w", err)
		}
		got, err := maskOf(r.PCRSelectionOut)
		if err != nil {
			return values, err
		}
		if got == 0 {
			return values, fmt.Errorf("read PCRs: the TPM has no SHA-256 bank: %w", errdefs.ErrNotImplemented)
		}
		if got&^mask != 0 || len(r.PCRValues.Digests) != bits.OnesCount32(got) {
			return values, malformed("%d values for PCRs %#x, asked for %#x", len(r.PCRValues.Digests), got, mask)
		}
		mask &^= got
		for _, digest := range r.PCRValues.Digests {
			if len(digest.Buffer) != len(Digest{}) {
				return values, malformed("PCR of %d bytes", len(digest.Buffer))
			}
			values[bits.TrailingZeros32(got)] = Digest(digest.Buffer)
			got &= got - 1
		}
	}
	return values, nil
}
