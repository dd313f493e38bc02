package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/coffer-cc/coffer/protos/agentpb"
	"github.com/coffer-cc/coffer/protos/typespb"
)

// TestPolicyInput spells the rules of the format out, one message each.
func TestPolicyInput(t *testing.T) {
	tests := []struct {
		name string
		msg  proto.Message
		want string
	}{
		{"zero values are present", &agentpb.OnlineCPUMemRequest{}, `{"wait":false,"nb_cpus":0,"cpu_only":false}`},
		{"no fields", &agentpb.GetMetricsRequest{}, `{}`},
		{"absent message is null", &agentpb.UpdateInterfaceRequest{}, `{"interface":null}`},
		{"type is renamed, case is kept, enums are numbers", &agentpb.UpdateInterfaceRequest{Interface: &typespb.Interface{
			Type: "tap", HwAddr: "02:00", IPAddresses: []*typespb.IPAddress{{Family: typespb.IPFamily_v6, Mask: "64"}},
		}}, `{"interface":{"device":"","name":"","IPAddresses":[{"family":1,"address":"","mask":"64"}],` +
			`"mtu":0,"hwAddr":"02:00","devicePath":"","type_":"tap","raw_flags":0}}`},
		{"an enum without name keeps its number", &agentpb.FSGroup{GroupChangePolicy: 7}, `{"group_id":0,"group_change_policy":7}`},
		{"bytes are numbers", &agentpb.ReseedRandomDevRequest{Data: []byte{0, 1, 255}}, `{"data":[0,1,255]}`},
		{"64 bits are numbers", &agentpb.SetGuestDateTimeRequest{Sec: 9007199254740993, Usec: -1}, `{"Sec":9007199254740993,"Usec":-1}`},
		{"optional fields", &agentpb.MemAgentMemcgConfig{Swap: proto.Bool(false), PeriodSecs: proto.Uint64(5)},
			`{"disabled":null,"swap":false,"swappiness_max":null,"period_secs":5,"period_psi_percent_limit":null,` +
				`"eviction_psi_percent_limit":null,"eviction_run_aging_count_min":null}`},
		{"oneof unset", &agentpb.LinuxSyscall{}, `{"Names":[],"Action":"","ErrnoRet":null,"Args":[]}`},
		{"oneof set to zero", &agentpb.LinuxSyscall{ErrnoRet: &agentpb.LinuxSyscall_Errnoret{}},
			`{"Names":[],"Action":"","ErrnoRet":{"Errnoret":0},"Args":[]}`},
		{"maps are ordered", &agentpb.Linux{Sysctl: map[string]string{"b": "2", "a": "1"}},
			`{"UIDMappings":[],"GIDMappings":[],"Sysctl":{"a":"1","b":"2"},"Resources":null,"CgroupsPath":"",` +
				`"Namespaces":[],"Devices":[],"Seccomp":null,"RootfsPropagation":"","MaskedPaths":[],` +
				`"ReadonlyPaths":[],"MountLabel":"","IntelRdt":null}`},
		{"text is quoted", &agentpb.SetPolicyRequest{Policy: "a\"\\\n\x01ü\u2028"}, `{"policy":"a\"\\\n\u0001ü\u2028"}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := PolicyInput(tt.msg)
			if err != nil || string(got) != tt.want {
				t.Errorf("%v\n got %s\nwant %s", err, got, tt.want)
			}
		})
	}
}

func TestPolicyInputGolden(t *testing.T) {
	all := requests(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		got, err := PolicyInput(all[name])
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var pretty bytes.Buffer
		if err := json.Indent(&pretty, got, "", " "); err != nil {
			t.Errorf("%s: not JSON: %v", name, err)
			continue
		}
		pretty.WriteByte('\n')
		golden(t, "policy/"+name+".json", pretty.Bytes())
	}
}

// TestEndpoints lists the methods whose name does not lead to the endpoint's.
func TestEndpoints(t *testing.T) {
	special := map[protoreflect.Name]string{
		"ReadStdout":         "ReadStreamRequest",
		"ReadStderr":         "ReadStreamRequest",
		"WriteStdin":         "WriteStreamRequest",
		"GetGuestDetails":    "GuestDetailsRequest",
		"GetVolumeStats":     "VolumeStatsRequest",
		"MemAgentMemcgSet":   "MemAgentMemcgConfig",
		"MemAgentCompactSet": "MemAgentCompactConfig",
	}
	svc, err := protoregistry.GlobalFiles.FindDescriptorByName("grpc.AgentService")
	if err != nil {
		t.Fatal(err)
	}
	methods := svc.(protoreflect.ServiceDescriptor).Methods()
	for i := range methods.Len() {
		m := methods.Get(i)
		want, ok := special[m.Name()]
		if !ok {
			want = string(m.Name()) + "Request"
		}
		mt, err := protoregistry.GlobalTypes.FindMessageByName(m.Input().FullName())
		if err != nil {
			t.Fatal(err)
		}
		if got := Endpoint(mt.New().Interface()); got != want {
			t.Errorf("%s: got %s, want %s", m.Name(), got, want)
		}
	}
}

func TestCopyFileInput(t *testing.T) {
	tests := []struct {
		name, kind, target string
		mode               uint32
	}{
		{"regular", "Regular", "null", 0o100644},
		{"directory", "Directory", "null", 0o040750},
		{"symlink", "Symlink", `"..data/a"`, 0o120777},
		{"socket has the directory bit", "Unknown", "null", 0o140600},
		{"no type", "Unknown", "null", 0o644},
		{"all bits", "Unknown", "null", 0o170000},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := PolicyInput(&agentpb.CopyFileRequest{
				Path: "/x", FileSize: 3, FileMode: tt.mode, DirMode: 2147484136, Gid: -1, Data: []byte("..data/a"),
			})
			if err != nil {
				t.Fatal(err)
			}
			var in map[string]json.RawMessage
			if err := json.Unmarshal(got, &in); err != nil {
				t.Fatal(err)
			}
			if string(in["file_type"]) != `"`+tt.kind+`"` || string(in["symlink_target"]) != tt.target || in["data"] != nil {
				t.Errorf("got %s", got)
			}
			if len(in) != 9 {
				t.Errorf("%d fields, want 9: %s", len(in), got)
			}
		})
	}
	_, err := PolicyInput(&agentpb.CopyFileRequest{FileMode: 0o120777, Data: []byte{0, 0xff}})
	if !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("target that is not text: got %v", err)
	}
}

func FuzzPolicyInput(f *testing.F) {
	for _, m := range requests(f) {
		raw, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(m.ProtoReflect().Descriptor().FullName()), raw)
	}
	f.Fuzz(func(t *testing.T, name string, raw []byte) {
		mt, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(name))
		if err != nil || mt.Descriptor().ParentFile().Package() != "grpc" {
			return
		}
		m := mt.New().Interface()
		if proto.Unmarshal(raw, m) != nil {
			return
		}
		if err := Validate(m); err != nil {
			if !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("class of error: %v", err)
			}
			return
		}
		in, err := PolicyInput(m)
		if err != nil {
			t.Fatalf("valid request has no input: %v", err)
		}
		if !json.Valid(in) {
			t.Errorf("not JSON: %s", in)
		}
	})
}

func BenchmarkPolicyInputCreate(b *testing.B) {
	m := readRequest(b, "../../protos/testdata/shim-requests/CreateContainer.16.json")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := PolicyInput(m); err != nil {
			b.Fatal(err)
		}
	}
}
