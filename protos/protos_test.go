// Package protos_test holds the messages to what shims that are not ours send
// and expect: recorded requests, the upstream names and numbers, and generated
// code that fits its sources.
package protos_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	_ "github.com/coffer-cc/coffer/protos/agentpb"
)

// record is one request of testdata/shim-requests.
type record struct {
	Service string          `json:"service"`
	Method  string          `json:"method"`
	Request json.RawMessage `json:"request"`
	Wire    []byte          `json:"request_b64"`
}

func TestRecordedRequests(t *testing.T) {
	files, err := filepath.Glob("testdata/shim-requests/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no records found: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) { checkRecord(t, file) })
	}
}

func checkRecord(t *testing.T, file string) {
	var rec record
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &rec); err != nil {
		t.Fatal(err)
	}
	msg := newRequest(t, rec)
	if err := proto.Unmarshal(rec.Wire, msg); err != nil {
		t.Fatal(err)
	}
	refuseUnknown(t, msg.ProtoReflect())

	opts := protojson.MarshalOptions{UseProtoNames: true}
	got, err := opts.Marshal(msg)
	if err != nil {
		t.Fatal(err)
	}
	if !sameJSON(t, got, rec.Request) {
		t.Errorf("decoded message differs from the record\n got %s\nwant %s", got, rec.Request)
	}

	again, err := proto.Marshal(msg)
	if err != nil {
		t.Fatal(err)
	}
	// Map entries have no fixed order, so the bytes may differ, never their
	// number.
	if len(again) != len(rec.Wire) {
		t.Errorf("encoded again: %d bytes, want %d", len(again), len(rec.Wire))
	}
	back := newRequest(t, rec)
	if err := proto.Unmarshal(again, back); err != nil || !proto.Equal(msg, back) {
		t.Errorf("encoded again and decoded: differs (%v)", err)
	}
}

// newRequest makes the empty request message of the record's method.
func newRequest(t *testing.T, rec record) proto.Message {
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(rec.Service))
	if err != nil {
		t.Fatal(err)
	}
	m := d.(protoreflect.ServiceDescriptor).Methods().ByName(protoreflect.Name(rec.Method))
	if m == nil {
		t.Fatalf("service %s has no method %s", rec.Service, rec.Method)
	}
	mt, err := protoregistry.GlobalTypes.FindMessageByName(m.Input().FullName())
	if err != nil {
		t.Fatal(err)
	}
	return mt.New().Interface()
}

// refuseUnknown fails for any field, at any depth, that the descriptors do not
// name.
func refuseUnknown(t *testing.T, m protoreflect.Message) {
	if u := m.GetUnknown(); len(u) > 0 {
		t.Errorf("%s has unknown fields: % x", m.Descriptor().FullName(), u)
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap():
			if fd.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
					refuseUnknown(t, v.Message())
					return true
				})
			}
		case fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				refuseUnknown(t, v.List().Get(i).Message())
			}
		default:
			refuseUnknown(t, v.Message())
		}
		return true
	})
}

func sameJSON(t *testing.T, a, b []byte) bool {
	var x, y any
	if err := json.Unmarshal(a, &x); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &y); err != nil {
		t.Fatal(err)
	}
	return reflect.DeepEqual(x, y)
}
