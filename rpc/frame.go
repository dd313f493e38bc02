package rpc

import (
	"encoding/binary"
	"fmt"
)

// A ttRPC frame is a header and as many bytes as it says:
//
//	0        4        8      9      10
//	┌────────┬────────┬──────┬───────┬─────────┐
//	│ length │ stream │ type │ flags │ payload │   numbers in big endian
//	└────────┴────────┴──────┴───────┴─────────┘
const (
	headerSize = 10

	frameRequest = 1

	flagRemoteClosed = 1 // nothing more will come; Go's client says so with each call

	// maxFrame is the longest payload that the library takes.
	maxFrame = 4 << 20
	// maxRefused is the longest frame that the library still skips and answers,
	// so that an overlong call gets an error and not just the end.
	maxRefused = 16 << 20
)

type header [headerSize]byte

func (h *header) length() uint32     { return binary.BigEndian.Uint32(h[0:]) }
func (h *header) stream() uint32     { return binary.BigEndian.Uint32(h[4:]) }
func (h *header) setStream(n uint32) { binary.BigEndian.PutUint32(h[4:], n) }

// check admits what a unary service can be asked. The library dereferences nil
// on a data frame for a unary call, and ignores other types but for their
// memory.
func (h *header) check() error {
	kind, flags := h[8], h[9]
	switch {
	case kind != frameRequest:
		return fmt.Errorf("frame of type %d, not a request", kind)
	case flags&^flagRemoteClosed != 0:
		return fmt.Errorf("frame with flags %#x, and no call here streams", flags)
	case h.stream()%2 == 0:
		return fmt.Errorf("frame with the even stream id %d", h.stream())
	case h.length() > maxRefused:
		return fmt.Errorf("frame of %d bytes", h.length())
	}
	return nil
}
