package wire

import (
	"bytes"
	"strconv"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

// Validate checks the shape of a request at every depth: identifiers, paths,
// lengths, numbers of elements. It runs before the policy, so that what a
// policy sees, and what evaluating it costs, is bounded. Errors are of class
// ErrInvalidArgument and begin with the path of the field.
//
// Shape is all it checks. Whether a container is known, or a path lies where it
// should, is for those who know.
func Validate(m proto.Message) error {
	w := walk{left: maxElements}
	if err := w.message("", m.ProtoReflect()); err != nil {
		return err
	}
	if c, ok := m.(*agentpb.CopyFileRequest); ok {
		return checkLink(c)
	}
	return nil
}

// checkLink accepts a link target that symlink(2) and JSON can both express.
func checkLink(r *agentpb.CopyFileRequest) error {
	if fileType(r.GetFileMode()) != typeSymlink {
		return nil
	}
	switch d := r.GetData(); {
	case len(d) == 0:
		return invalid("data", "a symlink needs a target")
	case len(d) > maxPath:
		return invalid("data", "symlink target longer than %d bytes", maxPath)
	case !utf8.Valid(d) || bytes.IndexByte(d, 0) >= 0:
		return invalid("data", "symlink target is not text")
	}
	return nil
}

// walk visits every field of a message once.
type walk struct {
	left int // elements that may still come
}

func (w *walk) message(path string, m protoreflect.Message) error {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if err := w.field(path, fd, m); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) field(path string, fd protoreflect.FieldDescriptor, m protoreflect.Message) error {
	if !m.Has(fd) {
		if !fd.IsList() && ruleFor(fd.FullName()).mustBeSet() {
			return invalid(join(path, fd), "must not be empty")
		}
		return nil
	}
	v := m.Get(fd)
	switch {
	case fd.IsMap():
		return w.mapping(join(path, fd), fd, v.Map())
	case fd.IsList():
		return w.list(join(path, fd), fd, v.List())
	}
	return w.value(join(path, fd), fd, v)
}

func (w *walk) list(path string, fd protoreflect.FieldDescriptor, l protoreflect.List) error {
	if err := w.take(path, l.Len()); err != nil {
		return err
	}
	if k := fd.Kind(); k != protoreflect.StringKind && k != protoreflect.BytesKind && k != protoreflect.MessageKind {
		return nil
	}
	for i := range l.Len() {
		if err := w.value(path+"["+strconv.Itoa(i)+"]", fd, l.Get(i)); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) mapping(path string, fd protoreflect.FieldDescriptor, m protoreflect.Map) (err error) {
	if err := w.take(path, m.Len()); err != nil {
		return err
	}
	// The key is left out of the path: it is as hostile as the value.
	m.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		if err = checkText(path, k.String(), maxPath); err == nil {
			err = w.value(path, fd.MapValue(), v)
		}
		return err == nil
	})
	return err
}

func (w *walk) value(path string, fd protoreflect.FieldDescriptor, v protoreflect.Value) error {
	switch fd.Kind() {
	case protoreflect.StringKind:
		return ruleFor(fd.FullName()).check(path, v.String())
	case protoreflect.BytesKind:
		return checkData(path, fd, v.Bytes())
	case protoreflect.MessageKind:
		return w.message(path, v.Message())
	}
	return nil
}

// take counts elements. A list of empty messages is tiny on the wire and huge
// as policy input, so they are counted over the whole request.
func (w *walk) take(path string, n int) error {
	if w.left -= n; w.left < 0 {
		return invalid(path, "more than %d elements in one request", maxElements)
	}
	return nil
}

// checkData bounds bytes. A policy sees each as a number, which makes them
// dear; the content of a file is not shown to it.
func checkData(path string, fd protoreflect.FieldDescriptor, b []byte) error {
	if len(b) > maxData && fd.FullName() != "grpc.CopyFileRequest.data" {
		return invalid(path, "longer than %d bytes", maxData)
	}
	return nil
}

func join(path string, fd protoreflect.FieldDescriptor) string {
	if path == "" {
		return string(fd.Name())
	}
	return path + "." + string(fd.Name())
}
