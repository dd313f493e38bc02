// Package secret holds the one type that carries keys and secrets through the
// program. It is a leaf: any package may import it, and it imports none.
package secret

import (
	"errors"
	"fmt"
	"log/slog"
)

// placeholder is what every attempt to print a secret shows.
const placeholder = "[secret]"

// errMarshal is the answer to every encoder that asks for the contents.
var errMarshal = errors.New("secret does not marshal")

// Bytes is a key or a secret. It prints as a placeholder with every verb, logs
// as one, and refuses to marshal, so it cannot reach the console by accident,
// which the host can read. Wipe it when done; copies made by append or by a
// conversion to string are yours, and a string cannot be wiped. One gap is left
// by package fmt, which does not ask the methods of unexported fields: do not
// print a struct that hides a secret in one.
type Bytes []byte

// Wipe overwrites the contents with zeros. The length stays, so that a slice
// of the same array held elsewhere reads zeros and not a shorter key.
func (b Bytes) Wipe() { clear(b) }

// Clone returns a copy with its own memory, to be wiped by the caller.
func (b Bytes) Clone() Bytes {
	c := make(Bytes, len(b))
	copy(c, b)
	return c
}

// String hides the contents.
func (b Bytes) String() string { return placeholder }

// GoString hides the contents from %#v.
func (b Bytes) GoString() string { return placeholder }

// Format hides the contents from every verb: without it %x and %d would walk
// the slice, since they do not ask String.
func (b Bytes) Format(f fmt.State, _ rune) { fmt.Fprint(f, placeholder) }

// LogValue hides the contents from log/slog.
func (b Bytes) LogValue() slog.Value { return slog.StringValue(placeholder) }

// MarshalJSON always fails; encoding/json would otherwise write base64.
func (b Bytes) MarshalJSON() ([]byte, error) { return nil, errMarshal }

// MarshalText always fails, for the encoders that look for text.
func (b Bytes) MarshalText() ([]byte, error) { return nil, errMarshal }

// MarshalBinary always fails, for the encoders that look for bytes.
func (b Bytes) MarshalBinary() ([]byte, error) { return nil, errMarshal }
