// Package measure reads what the platform measured while the guest started,
// and extends its runtime registers.
package measure

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/containerd/errdefs"
)

// MaxLog bounds an event log. Firmware reserves at most a megabyte.
const MaxLog = 4 << 20

// Event types of the TCG PC client profile that have a role here.
const noAction = 3 // EV_NO_ACTION: nothing was measured

// Digests by TCG algorithm number.
var digestSizes = map[uint16]int{0x0b: 32, 0x0c: 48, 0x0d: 64, 0x12: 32}

// SHA384 is the TCG number of the algorithm that TDX registers use.
const SHA384 = 0x0c

// Event is one entry of a confidential computing event log. Register counts
// from 1 for the first runtime register; 0 is the measurement of the image.
type Event struct {
	Register uint32
	Type     uint32
	Digests  map[uint16][]byte // by TCG algorithm number
	Data     []byte
}

// Measured reports whether the event was extended into its register.
func (e Event) Measured() bool { return e.Type != noAction }

// end marks the unused rest of a log: firmware fills its area with one of two.
var ends = [][]byte{bytes.Repeat([]byte{0xff}, 8), make([]byte, 8)}

// CCEL walks over the log that the ACPI table of the same name points to, and
// returns its events and the part that they take, without the end mark. A log
// without an end mark, or with a digest of unknown size, wraps
// errdefs.ErrInvalidArgument: it cannot be told where the next event starts.
func CCEL(log []byte) (events []Event, used []byte, err error) {
	if len(log) > MaxLog {
		return nil, nil, fmt.Errorf("event log exceeds %d bytes: %w", MaxLog, errdefs.ErrInvalidArgument)
	}
	r := reader{rest: log}
	r.header()
	for r.err == nil {
		if len(r.rest) < 8 {
			return nil, nil, fmt.Errorf("event log has no end mark: %w", errdefs.ErrInvalidArgument)
		}
		if bytes.Equal(r.rest[:8], ends[0]) || bytes.Equal(r.rest[:8], ends[1]) {
			return events, log[:len(log)-len(r.rest)], nil
		}
		events = append(events, r.event())
	}
	return nil, nil, fmt.Errorf("event log: event %d: %w", len(events), r.err)
}

// reader takes fields from the front of a log until one does not fit.
type reader struct {
	rest []byte
	err  error
}

// header skips the first event, which has the older form with one SHA-1 digest.
func (r *reader) header() {
	r.take(4 + 4 + 20)
	r.take(int(r.u32()))
}

func (r *reader) event() Event {
	e := Event{Register: r.u32(), Type: r.u32(), Digests: map[uint16][]byte{}}
	for n := r.u32(); n > 0 && r.err == nil; n-- {
		alg := r.u16()
		size, known := digestSizes[alg]
		if !known && r.err == nil {
			r.err = fmt.Errorf("digest algorithm %#x is not known: %w", alg, errdefs.ErrInvalidArgument)
		}
		e.Digests[alg] = r.take(size)
	}
	e.Data = r.take(int(r.u32()))
	return e
}

func (r *reader) take(n int) []byte {
	if r.err == nil && (n < 0 || n > len(r.rest)) {
		r.err = fmt.Errorf("ends early: %w", errdefs.ErrInvalidArgument)
	}
	if r.err != nil {
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) u16() uint16 {
	if b := r.take(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}
