package wire

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// requests returns what a real shim sent, by the name of the record.
func requests(t testing.TB) map[string]proto.Message {
	t.Helper()
	files, err := filepath.Glob("../../protos/testdata/shim-requests/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no records found: %v", err)
	}
	out := make(map[string]proto.Message)
	for _, file := range files {
		out[strings.TrimSuffix(filepath.Base(file), ".json")] = readRequest(t, file)
	}
	return out
}

func readRequest(t testing.TB, file string) proto.Message {
	t.Helper()
	var rec struct {
		Service, Method string
		Wire            []byte `json:"request_b64"`
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &rec); err != nil {
		t.Fatal(err)
	}
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(rec.Service))
	if err != nil {
		t.Fatal(err)
	}
	in := d.(protoreflect.ServiceDescriptor).Methods().ByName(protoreflect.Name(rec.Method)).Input()
	mt, err := protoregistry.GlobalTypes.FindMessageByName(in.FullName())
	if err != nil {
		t.Fatal(err)
	}
	m := mt.New().Interface()
	if err := proto.Unmarshal(rec.Wire, m); err != nil {
		t.Fatal(err)
	}
	return m
}

// golden compares with testdata/name, or writes it with -update.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("%s differs; -update rewrites it\n got %s\nwant %s", file, got, want)
	}
}

func TestRecordsPassValidation(t *testing.T) {
	for name, m := range requests(t) {
		if err := Validate(m); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRecordsConvert turns each recorded spec into the OCI one, back, and again.
// The second conversion must give what the first gave.
func TestRecordsConvert(t *testing.T) {
	for name, m := range requests(t) {
		c, ok := m.(*agentpb.CreateContainerRequest)
		if !ok {
			continue
		}
		first, err := Spec(c.OCI)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		second, err := Spec(SpecMessage(first))
		if err != nil {
			t.Errorf("%s: again: %v", name, err)
		}
		if !reflect.DeepEqual(first, second) {
			t.Errorf("%s: changes when it goes to the wire and back", name)
		}
	}
}

func TestSpecGolden(t *testing.T) {
	all := requests(t)
	for _, name := range []string{"CreateContainer.01", "CreateContainer.04", "CreateContainer.16"} {
		spec, err := Spec(all[name].(*agentpb.CreateContainerRequest).OCI)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := json.MarshalIndent(spec, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "spec/"+name+".json", append(got, '\n'))
	}
}
