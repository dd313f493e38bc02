package tpm

import "github.com/google/go-tpm/tpm2"

// Stated is what the message of a quote says beside the PCRs. Of a key outside
// the hierarchies of endorsement and platform, firmware version and counts are
// obscured by the TPM: equal for the same key, and no more than that.
type Stated struct {
	Nonce     []byte // extraData
	Firmware  uint64 // the vendor's own number
	Clock     uint64 // milliseconds
	Resets    uint32
	Restarts  uint32
	Safe      bool // the clock has not told a later time before
	PCRDigest []byte
}

// ReadQuote takes the message of a quote apart, and verifies nothing. What is no
// message of a quote is malformed: see malformed.
func ReadQuote(message []byte) (Stated, error) {
	attest, err := tpm2.Unmarshal[tpm2.TPMSAttest](message)
	if err != nil {
		return Stated{}, malformed("%v", err)
	}
	info, err := attest.Attested.Quote()
	if err != nil || attest.Magic != tpm2.TPMGeneratedValue {
		return Stated{}, malformed("no quote of a TPM")
	}
	clock := attest.ClockInfo
	return Stated{
		Nonce: attest.ExtraData.Buffer, Firmware: attest.FirmwareVersion,
		Clock: clock.Clock, Resets: clock.ResetCount, Restarts: clock.RestartCount, Safe: clock.Safe,
		PCRDigest: info.PCRDigest.Buffer,
	}, nil
}
