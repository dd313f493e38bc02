package wire

import (
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

func TestValidate(t *testing.T) {
	const cid = "c1"
	long := strings.Repeat("a", maxID+1)
	tests := []struct {
		name string
		msg  proto.Message
		want string // "" accepts
	}{
		{"id", &agentpb.StartContainerRequest{ContainerId: "a-b_c.d"}, ""},
		{"id empty", &agentpb.StartContainerRequest{}, "container_id: must not be empty"},
		{"id of one", &agentpb.StartContainerRequest{ContainerId: "a"}, "container_id: must have at least two"},
		{"id climbs", &agentpb.StartContainerRequest{ContainerId: "../x"}, "container_id: character '.' at position 0"},
		{"id with slash", &agentpb.StartContainerRequest{ContainerId: "a/b"}, "container_id: character '/'"},
		{"id with newline", &agentpb.StartContainerRequest{ContainerId: "ab\n"}, "container_id: character '\\n'"},
		{"id with umlaut", &agentpb.StartContainerRequest{ContainerId: "aä"}, "container_id: character"},
		{"id too long", &agentpb.StartContainerRequest{ContainerId: long}, "container_id: longer than"},
		{"exec id of init", &agentpb.WaitProcessRequest{ContainerId: cid}, ""},
		{"exec id climbs", &agentpb.WaitProcessRequest{ContainerId: cid, ExecId: "a/.."}, "exec_id: character '/'"},
		{"new exec id empty", &agentpb.ExecProcessRequest{ContainerId: cid}, "exec_id: must not be empty"},
		{"sandbox id empty", &agentpb.CreateSandboxRequest{}, ""},
		{"sandbox id climbs", &agentpb.CreateSandboxRequest{SandboxId: "../.."}, "sandbox_id"},
		{"path relative", &agentpb.CopyFileRequest{Path: "a"}, "path: must be an absolute path"},
		{"path NUL", &agentpb.CopyFileRequest{Path: "/a\x00b"}, "path: NUL"},
		{"path long", &agentpb.CopyFileRequest{Path: "/" + strings.Repeat("a", maxPath)}, "path: longer than 4095"},
		{"path bytes", &agentpb.CopyFileRequest{Path: "/\xff"}, "path: must be UTF-8"},
		{"link", &agentpb.CopyFileRequest{Path: "/a", FileMode: 0o120777, Data: []byte("..data/x")}, ""},
		{"link empty", &agentpb.CopyFileRequest{Path: "/a", FileMode: 0o120777}, "data: a symlink needs"},
		{"link bytes", &agentpb.CopyFileRequest{Path: "/a", FileMode: 0o120777, Data: []byte{0xff}}, "data: symlink target is not text"},
		{"file of 2 MiB", &agentpb.CopyFileRequest{Path: "/a", Data: make([]byte, 2<<20)}, ""},
		{"input of 2 MiB", &agentpb.WriteStreamRequest{ContainerId: cid, Data: make([]byte, 2<<20)}, "data: longer than"},
		{"storage in a list", &agentpb.CreateContainerRequest{ContainerId: cid, Storages: []*agentpb.Storage{
			{Driver: "local", MountPoint: "/a"}, {Driver: "local", MountPoint: "a"},
		}}, "storages[1].mount_point: must be an absolute path"},
		{"policy as an annotation", annotated(strings.Repeat("a", 250<<10)), ""},
		{"annotation too long", annotated(strings.Repeat("a", maxMetadata+1)), "storages[0].driver_options[0]: longer than"},
		{"storage without driver", &agentpb.UpdateEphemeralMountsRequest{Storages: []*agentpb.Storage{
			{MountPoint: "/a"},
		}}, "storages[0].driver: must not be empty"},
		{"device without path", &agentpb.CreateContainerRequest{ContainerId: cid, Devices: []*agentpb.Device{
			{Type: "blk", Id: "02"},
		}}, "devices[0].container_path: must not be empty"},
		{"env NUL", &agentpb.ExecProcessRequest{ContainerId: cid, ExecId: "e", Process: &agentpb.Process{
			Env: []string{"A=1", "B=\x00"},
		}}, "process.Env[1]: NUL"},
		{"env without equals sign", &agentpb.ExecProcessRequest{ContainerId: cid, ExecId: "e", Process: &agentpb.Process{
			Env: []string{"PCIDEVICE"},
		}}, ""},
		{"argument too long", &agentpb.ExecProcessRequest{ContainerId: cid, ExecId: "e", Process: &agentpb.Process{
			Args: []string{strings.Repeat("a", maxText+1)},
		}}, "process.Args[0]: longer than"},
		{"annotation", &agentpb.CreateContainerRequest{ContainerId: cid, OCI: &agentpb.Spec{
			Annotations: map[string]string{"k": "v\x00"},
		}}, "OCI.Annotations: NUL"},
		{"no masked paths", &agentpb.CreateContainerRequest{ContainerId: cid, OCI: &agentpb.Spec{
			Linux: &agentpb.Linux{},
		}}, ""},
		{"empty masked path", &agentpb.CreateContainerRequest{ContainerId: cid, OCI: &agentpb.Spec{
			Linux: &agentpb.Linux{MaskedPaths: []string{""}},
		}}, "OCI.Linux.MaskedPaths[0]: must be an absolute path"},
		{"too many elements", &agentpb.MemHotplugByProbeRequest{MemHotplugProbeAddr: make([]uint64, maxElements+1)}, "memHotplugProbeAddr: more than"},
		{"long policy", &agentpb.SetPolicyRequest{Policy: strings.Repeat("#\n", 1<<20)}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := Validate(tt.msg)
			if tt.want == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			if !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

// annotated is what the shims make of one annotation of a pod: they send it in
// the spec, and with an image pulled in the guest as part of a driver option.
func annotated(value string) *agentpb.CreateContainerRequest {
	const key = "io.katacontainers.config.agent.policy"
	return &agentpb.CreateContainerRequest{
		ContainerId: "c1",
		OCI:         &agentpb.Spec{Annotations: map[string]string{key: value}},
		Storages: []*agentpb.Storage{{Driver: "image_guest_pull", MountPoint: "/a", DriverOptions: []string{
			`image_guest_pull={"metadata":{"` + key + `":"` + value + `"}}`,
		}}},
	}
}

// TestElementsAddUp spreads too many elements over lists that are each short
// enough.
func TestElementsAddUp(t *testing.T) {
	calls := make([]*agentpb.LinuxSyscall, 300)
	for i := range calls {
		calls[i] = &agentpb.LinuxSyscall{Args: make([]*agentpb.LinuxSeccompArg, 300)}
		for j := range calls[i].Args {
			calls[i].Args[j] = &agentpb.LinuxSeccompArg{}
		}
	}
	m := &agentpb.CreateContainerRequest{ContainerId: "c1", OCI: &agentpb.Spec{
		Linux: &agentpb.Linux{Seccomp: &agentpb.LinuxSeccomp{Syscalls: calls}},
	}}
	if err := Validate(m); err == nil || !strings.Contains(err.Error(), "elements in one request") {
		t.Errorf("got %v", err)
	}
}

// TestRulesNameRealFields finds a misspelt rule, which would check nothing, and
// an identifier without a rule.
func TestRulesNameRealFields(t *testing.T) {
	src, err := os.ReadFile("rules.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range regexp.MustCompile(`"(?:grpc|types)\.[^"]+"`).FindAllString(string(src), -1) {
		name := protoreflect.FullName(strings.Trim(q, `"`))
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if fd, ok := d.(protoreflect.FieldDescriptor); !ok || fd.Kind() != protoreflect.StringKind {
			t.Errorf("%s is not a string field", name)
		}
	}
	svc, err := protoregistry.GlobalFiles.FindDescriptorByName("grpc.AgentService")
	if err != nil {
		t.Fatal(err)
	}
	methods := svc.(protoreflect.ServiceDescriptor).Methods()
	for i := range methods.Len() {
		fields := methods.Get(i).Input().Fields()
		for _, f := range []protoreflect.Name{"container_id", "exec_id"} {
			if fd := fields.ByName(f); fd != nil && ruleFor(fd.FullName()) == anyText {
				t.Errorf("%s has no rule", fd.FullName())
			}
		}
	}
}

func BenchmarkValidateRead(b *testing.B) {
	m := &agentpb.ReadStreamRequest{ContainerId: strings.Repeat("a", 64), ExecId: strings.Repeat("b", 36), Len: 32768}
	b.ReportAllocs()
	for b.Loop() {
		if err := Validate(m); err != nil {
			b.Fatal(err)
		}
	}
}
