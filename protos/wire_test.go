package protos_test

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// TestWireNames compares every name, number and type with the upstream ones.
// The list is a fact about others and has no -update switch.
func TestWireNames(t *testing.T) {
	got := describeWire()
	want := readLines(t, "testdata/wire.txt")
	for _, l := range want {
		if !slices.Contains(got, l) {
			t.Errorf("missing: %s", l)
		}
	}
	for _, l := range got {
		if !slices.Contains(want, l) {
			t.Errorf("not upstream: %s", l)
		}
	}
}

// describeWire renders the wire packages "grpc" and "types", one fact a line.
func describeWire() []string {
	var out []string
	for _, pkg := range []protoreflect.FullName{"grpc", "types"} {
		protoregistry.GlobalFiles.RangeFilesByPackage(pkg, func(f protoreflect.FileDescriptor) bool {
			for i := range f.Services().Len() {
				out = append(out, describeService(f.Services().Get(i))...)
			}
			out = append(out, describeMessages(f.Messages())...)
			out = append(out, describeEnums(f.Enums())...)
			return true
		})
	}
	slices.Sort(out)
	return out
}

func describeService(s protoreflect.ServiceDescriptor) (out []string) {
	for i := range s.Methods().Len() {
		m := s.Methods().Get(i)
		out = append(out, fmt.Sprintf("rpc %s %s %s", m.FullName(), m.Input().FullName(), m.Output().FullName()))
	}
	return out
}

func describeMessages(ms protoreflect.MessageDescriptors) (out []string) {
	for i := range ms.Len() {
		m := ms.Get(i)
		out = append(out, fmt.Sprintf("message %s", m.FullName()))
		out = append(out, describeMessages(m.Messages())...)
		out = append(out, describeEnums(m.Enums())...)
		for j := range m.Fields().Len() {
			out = append(out, describeField(m.Fields().Get(j)))
		}
	}
	return out
}

func describeField(f protoreflect.FieldDescriptor) string {
	kind := f.Kind().String()
	switch {
	case f.Message() != nil:
		kind = string(f.Message().FullName())
	case f.Enum() != nil:
		kind = string(f.Enum().FullName())
	}
	line := fmt.Sprintf("field %s %d %s %s", f.FullName(), f.Number(), f.Cardinality(), kind)
	if o := f.ContainingOneof(); o != nil {
		line += " oneof " + string(o.Name())
	}
	return line
}

func describeEnums(es protoreflect.EnumDescriptors) (out []string) {
	for i := range es.Len() {
		vs := es.Get(i).Values()
		for j := range vs.Len() {
			out = append(out, fmt.Sprintf("value %s.%s %d", es.Get(i).FullName(), vs.Get(j).Name(), vs.Get(j).Number()))
		}
	}
	return out
}

func readLines(t *testing.T, file string) (lines []string) {
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if l := strings.TrimSpace(s.Text()); l != "" {
			lines = append(lines, l)
		}
	}
	return lines
}
