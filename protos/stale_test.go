package protos_test

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

// TestGeneratedCodeIsFresh compares sources and generated files with the sums
// that generate.sh wrote, so an edit to either without a run of it shows up
// even where no generator is installed.
func TestGeneratedCodeIsFresh(t *testing.T) {
	var listed []string
	for _, line := range readLines(t, "SHA256SUMS") {
		sum, name, ok := strings.Cut(line, "  protos/")
		if !ok {
			t.Fatalf("malformed line %q", line)
		}
		listed = append(listed, name)
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Error(err)
			continue
		}
		if got := sha256.Sum256(raw); hex.EncodeToString(got[:]) != sum {
			t.Errorf("%s has changed since generate.sh ran: run it", name)
		}
	}
	for _, pattern := range []string{"*.proto", "*/*.pb.go"} {
		files, _ := filepath.Glob(pattern)
		for _, f := range files {
			if !slices.Contains(listed, f) {
				t.Errorf("%s is not in SHA256SUMS: run generate.sh", f)
			}
		}
	}
}

// TestDescriptorsMatchSources parses the sources again and compares them with
// the descriptors that the generated code carries.
func TestDescriptorsMatchSources(t *testing.T) {
	protoc, err := exec.LookPath("protoc")
	if err != nil {
		t.Skip("protoc is not installed; the sums above still hold")
	}
	sources, _ := filepath.Glob("*.proto")
	out := filepath.Join(t.TempDir(), "set")
	args := []string{"-I", "..", "--descriptor_set_out=" + out}
	for _, s := range sources {
		args = append(args, "../protos/"+s)
	}
	if msg, err := exec.Command(protoc, args...).CombinedOutput(); err != nil {
		t.Fatalf("protoc: %v\n%s", err, msg)
	}
	raw, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(raw, &set); err != nil {
		t.Fatal(err)
	}
	for _, want := range set.File {
		fd, err := protoregistry.GlobalFiles.FindFileByPath(want.GetName())
		if err != nil {
			t.Error(err)
			continue
		}
		if got := protodesc.ToFileDescriptorProto(fd); !proto.Equal(got, want) {
			t.Errorf("%s: generated code carries another descriptor", want.GetName())
		}
	}
}
