package measure

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
)

// An Entry is something that happened at run time, in the form of the AAEL
// (attestation agent event log) of Confidential Containers. In the log it is
// one line, "<domain> <operation> <content>".
type Entry struct {
	Domain    string // who defines the operation, such as github.com/confidential-containers
	Operation string
	Content   string // one line of text, preferably canonical JSON
}

// Bounds of the parts of an entry, in bytes.
const (
	maxName    = 256
	maxContent = 64 << 10
)

// Check refuses what could be read in two ways: the first two spaces delimit,
// and a line break ends an entry. It wraps errdefs.ErrInvalidArgument.
func (e Entry) Check() error {
	for _, name := range []struct{ what, text string }{{"domain", e.Domain}, {"operation", e.Operation}} {
		if name.text == "" || len(name.text) > maxName || strings.ContainsAny(name.text, " \n\r\x00") {
			return fmt.Errorf("%s of an event is empty, longer than %d bytes or has spaces: %w", name.what, maxName, errdefs.ErrInvalidArgument)
		}
	}
	if len(e.Content) > maxContent || strings.ContainsAny(e.Content, "\n\r\x00") {
		return fmt.Errorf("content of an event has several lines or more than %d bytes: %w", maxContent, errdefs.ErrInvalidArgument)
	}
	return nil
}

// aaelTag is the id of a tagged event that holds an Entry; it reads LEAA as
// bytes, since it is a number in little endian.
const aaelTag = 0x4141454c

// eventTag is the TCG type of tagged events, EV_EVENT_TAG.
const eventTag = 6

// tagged is what is hashed: the tag, the length, and the line.
func (e Entry) tagged() []byte {
	line := e.Domain + " " + e.Operation + " " + e.Content
	b := binary.LittleEndian.AppendUint32(nil, aaelTag)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(line)))
	return append(b, line...)
}

// Line reads an event of a log back as an Entry; ok is false where it is none.
func Line(e Event) (line Entry, ok bool) {
	if e.Type != eventTag || len(e.Data) < 8 || binary.LittleEndian.Uint32(e.Data) != aaelTag || int64(binary.LittleEndian.Uint32(e.Data[4:])) != int64(len(e.Data)-8) {
		return line, false
	}
	parts := strings.SplitN(string(e.Data[8:]), " ", 3)
	if len(parts) != 3 {
		return line, false
	}
	line = Entry{parts[0], parts[1], parts[2]}
	return line, line.Check() == nil
}

// encode returns the entry as an event of the log (TCG2 crypto agile), and the
// digest that goes into the register.
func (e Entry) encode(b Bank, register uint32) (event, digest []byte) {
	data := e.tagged()
	digest = b.hash(data)
	for _, n := range []uint32{register, eventTag, 1} {
		event = binary.LittleEndian.AppendUint32(event, n)
	}
	event = binary.LittleEndian.AppendUint16(event, b.algorithm())
	event = append(event, digest...)
	event = binary.LittleEndian.AppendUint32(event, uint32(len(data)))
	return append(event, data...), digest
}

// LogHeader is what stands before the first entry where the firmware has left no
// log: the event that names the digests of a log (TCG_EfiSpecIDEvent), zeros but
// for its type, its length and the two algorithms, as the reference guest sends
// it.
func LogHeader() []byte {
	const payload = 37
	b := make([]byte, 32, 32+payload)
	b[4], b[28] = noAction, payload
	b = append(b, make([]byte, 24)...)
	b = append(b, 2, 0, 0, 0) // algorithms
	b = append(b, 0x0c, 0, 48, 0)
	b = append(b, 0x12, 0, 32, 0)
	return append(b, 0) // no vendor's information
}
