package wire

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

// Endpoint is the name under which a policy rules on a request: the name of
// the message, not of the method. Both ReadStdout and ReadStderr are thus
// ReadStreamRequest.
func Endpoint(m proto.Message) string {
	return string(m.ProtoReflect().Descriptor().Name())
}

// PolicyInput renders a request as the JSON that policies are written against.
// It is a public format, fixed by Kata's serialisation of its Rust types, and
// differs from the protobuf JSON mapping: every field is present whatever its
// value; names are those of the .proto files, with "type" spelled "type_"; an
// absent message or optional field is null; bytes are arrays of numbers, 64-bit
// integers are numbers, enums are numbers; a oneof is null or an object with
// the name of the chosen member.
//
// A CopyFileRequest has an input of its own, see CopyFileInput.
func PolicyInput(m proto.Message) ([]byte, error) {
	if c, ok := m.(*agentpb.CopyFileRequest); ok {
		return CopyFileInput(c)
	}
	return appendMessage(make([]byte, 0, 512), m.ProtoReflect())
}

func appendMessage(b []byte, m protoreflect.Message) (_ []byte, err error) {
	b = append(b, '{')
	fields := m.Descriptor().Fields()
	seen := protoreflect.OneofDescriptor(nil)
	for i := range fields.Len() {
		fd := fields.Get(i)
		if o := fd.ContainingOneof(); o != nil && !o.IsSynthetic() {
			if o != seen {
				seen = o
				b, err = appendOneof(appendKey(b, string(o.Name())), o, m)
			}
		} else {
			b, err = appendField(appendKey(b, inputName(fd)), fd, m)
		}
		if err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

// inputName avoids the Rust keyword, as the upstream code generator does.
func inputName(fd protoreflect.FieldDescriptor) string {
	if fd.Name() == "type" {
		return "type_"
	}
	return string(fd.Name())
}

func appendKey(b []byte, key string) []byte {
	if b[len(b)-1] != '{' {
		b = append(b, ',')
	}
	return append(appendString(b, key), ':')
}

func appendOneof(b []byte, o protoreflect.OneofDescriptor, m protoreflect.Message) ([]byte, error) {
	fd := m.WhichOneof(o)
	if fd == nil {
		return append(b, "null"...), nil
	}
	name := string(fd.Name())
	b = appendKey(append(b, '{'), strings.ToUpper(name[:1])+name[1:])
	b, err := appendValue(b, fd, m.Get(fd))
	return append(b, '}'), err
}

func appendField(b []byte, fd protoreflect.FieldDescriptor, m protoreflect.Message) ([]byte, error) {
	switch {
	case fd.HasPresence() && !m.Has(fd):
		return append(b, "null"...), nil
	case fd.IsMap():
		return appendMap(b, fd, m.Get(fd).Map())
	case fd.IsList():
		return appendList(b, fd, m.Get(fd).List())
	}
	return appendValue(b, fd, m.Get(fd))
}

func appendList(b []byte, fd protoreflect.FieldDescriptor, l protoreflect.List) (_ []byte, err error) {
	b = append(b, '[')
	for i := range l.Len() {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = appendValue(b, fd, l.Get(i)); err != nil {
			return nil, err
		}
	}
	return append(b, ']'), nil
}

// appendMap orders the keys, so that equal requests give equal input.
func appendMap(b []byte, fd protoreflect.FieldDescriptor, m protoreflect.Map) (_ []byte, err error) {
	keys := make([]protoreflect.MapKey, 0, m.Len())
	m.Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool {
		keys = append(keys, k)
		return true
	})
	slices.SortFunc(keys, func(a, b protoreflect.MapKey) int { return strings.Compare(a.String(), b.String()) })
	b = append(b, '{')
	for _, k := range keys {
		if b, err = appendValue(appendKey(b, k.String()), fd.MapValue(), m.Get(k)); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

func appendValue(b []byte, fd protoreflect.FieldDescriptor, v protoreflect.Value) ([]byte, error) {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return strconv.AppendBool(b, v.Bool()), nil
	case protoreflect.StringKind:
		return appendString(b, v.String()), nil
	case protoreflect.BytesKind:
		return appendBytes(b, v.Bytes()), nil
	case protoreflect.EnumKind:
		return strconv.AppendInt(b, int64(v.Enum()), 10), nil
	case protoreflect.MessageKind:
		return appendMessage(b, v.Message())
	case protoreflect.Int32Kind, protoreflect.Int64Kind:
		return strconv.AppendInt(b, v.Int(), 10), nil
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind:
		return strconv.AppendUint(b, v.Uint(), 10), nil
	}
	// The messages use no other kind; one that starts to must be given a form.
	return nil, fmt.Errorf("render %s for the policy: no form for %s", fd.FullName(), fd.Kind())
}

func appendBytes(b, data []byte) []byte {
	b = append(slices.Grow(b, 4*len(data)+2), '[')
	for i, c := range data {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(c), 10)
	}
	return append(b, ']')
}

// appendString leaves plain text to a copy and the rest to encoding/json.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			quoted, err := json.Marshal(s)
			if err != nil { // strings always marshal
				quoted = []byte(`""`)
			}
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}
