package cca

import (
	"encoding/binary"
	"fmt"

	"github.com/containerd/errdefs"
)

// Major types of CBOR (RFC 8949 section 3.1).
const (
	unsigned = iota
	negative
	byteString
	textString
	array
	dictionary
	tagged
	simple
)

// maxDepth bounds how deep items nest; tokens have a map in an array in a map.
const maxDepth = 8

// reader takes items from the front of a text until one does not fit. Lengths
// that are not stated in front, which nobody writes into tokens, do not fit.
type reader struct {
	rest []byte
	err  error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("CCA token: "+format+": %w", append(args, errdefs.ErrInvalidArgument)...)
	}
}

func (r *reader) take(n uint64) []byte {
	if r.err == nil && n > uint64(len(r.rest)) {
		r.fail("it ends early")
	}
	if r.err != nil {
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

// head reads the first bytes of an item: what it is, and a number or a length.
func (r *reader) head() (major byte, n uint64) {
	b := r.take(1)
	if b == nil {
		return simple, 0
	}
	major, n = b[0]>>5, uint64(b[0]&0x1f)
	if n < 24 {
		return major, n
	}
	if n > 27 {
		r.fail("an item of unstated length")
		return simple, 0
	}
	var wide [8]byte
	more := r.take(1 << (n - 24))
	copy(wide[8-len(more):], more)
	return major, binary.BigEndian.Uint64(wide[:])
}

// expect reads the head of an item of one kind.
func (r *reader) expect(want byte, name string) uint64 {
	major, n := r.head()
	if major != want {
		r.fail("%s is of another type", name)
	}
	return n
}

// tag reads a tag, which has to be this one.
func (r *reader) tag(want uint64, name string) {
	if n := r.expect(tagged, name); n != want {
		r.fail("%s has tag %d and not %d", name, n, want)
	}
}

// bytes reads a byte string.
func (r *reader) bytes(name string) []byte { return r.take(r.expect(byteString, name)) }

// bytes64 reads a byte string of that size.
func (r *reader) bytes64(name string) (out [64]byte) {
	b := r.bytes(name)
	if r.err == nil && len(b) != len(out) {
		r.fail("%s has %d bytes and not %d", name, len(b), len(out))
	}
	copy(out[:], b)
	return out
}

// each reads a map. It shows f every key that is an unsigned number, once; f
// reads the value, or returns false to have it passed over.
func (r *reader) each(name string, f func(key uint64) bool) {
	seen := make(map[uint64]bool)
	for range r.count(r.expect(dictionary, name), 2) {
		if major, key := (&reader{rest: r.rest}).head(); major != unsigned {
			r.skip(0)
			r.skip(0)
		} else if r.head(); seen[key] {
			r.fail("%s has key %d twice", name, key)
		} else if seen[key] = true; !f(key) {
			r.skip(0)
		}
		if r.err != nil {
			return
		}
	}
}

// count bounds a number of items by what there is, each being a byte at least.
func (r *reader) count(n, each uint64) uint64 {
	if n > uint64(len(r.rest))/each {
		r.fail("it ends early")
		return 0
	}
	return n
}

// skip reads an item and what it holds.
func (r *reader) skip(depth int) {
	if depth > maxDepth {
		r.fail("items nest too deep")
	}
	major, n := r.head()
	inside := uint64(0)
	switch major {
	case byteString, textString:
		r.take(n)
	case array:
		inside = r.count(n, 1)
	case dictionary:
		inside = 2 * r.count(n, 2)
	case tagged:
		inside = 1
	}
	for range inside {
		if r.err != nil {
			return
		}
		r.skip(depth + 1)
	}
}

// end fails where something follows.
func (r *reader) end(name string) {
	if len(r.rest) > 0 {
		r.fail("%d bytes follow %s", len(r.rest), name)
	}
}
