package rpc

import (
	"context"
	"math"
	"strings"

	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/coffer-cc/coffer/protos/agentpb"
	"github.com/coffer-cc/coffer/protos/typespb"
)

func plainMethods(ms map[string]ttrpc.Method) map[string]func(context.Context, func(any) error) (any, error) {
	out := make(map[string]func(context.Context, func(any) error) (any, error), len(ms))
	for name, m := range ms {
		out[name] = m
	}
	return out
}

func ptrTo[T any](v T) *T { return &v }

// onContainer is the table of a method that names a container: make returns a
// good request for the id given.
func onContainer(unknown codes.Code, make func(id string) proto.Message, more ...badInput) badTable {
	return badTable{valid: make("c1"), bad: append([]badInput{
		{"no container", make(""), codes.InvalidArgument, "container_id"},
		{"one letter", make("c"), codes.InvalidArgument, "container_id"},
		{"path as container", make("../c1"), codes.InvalidArgument, "container_id"},
		{"unknown container", make("c2"), unknown, "Invalid container id"},
	}, more...)}
}

// badInputs has a table for each method with input.
func badInputs(f *guestFixture) map[string]badTable {
	all := map[string]badTable{}
	for _, tables := range []map[string]badTable{sandboxTables(f), containerTables(f), processTables(), networkTables(), fileTables(f), machineTables(f)} {
		for name, table := range tables {
			all[name] = table
		}
	}
	return all
}

func aStorage(f *guestFixture) *agentpb.Storage {
	return &agentpb.Storage{
		Driver: "ephemeral", Source: "tmpfs", Fstype: "tmpfs", MountPoint: f.dir + "/run/other",
		DriverOptions: []string{"a"}, Options: []string{"size=1m"}, FsGroup: &agentpb.FSGroup{},
	}
}

// badStorages are storages that no method takes.
func badStorages(f *guestFixture, request func(*agentpb.Storage) proto.Message) []badInput {
	change := func(c func(*agentpb.Storage)) proto.Message {
		s := aStorage(f)
		c(s)
		return request(s)
	}
	return []badInput{
		{"wrong driver", change(func(s *agentpb.Storage) { s.Driver = "floppy" }), codes.Unimplemented, "floppy"},
		{"no driver", change(func(s *agentpb.Storage) { s.Driver = "" }), codes.InvalidArgument, "driver"},
		{"no mount point", change(func(s *agentpb.Storage) { s.MountPoint = "" }), codes.InvalidArgument, "mount_point"},
		{"outside the root", change(func(s *agentpb.Storage) { s.MountPoint = "/etc" }), codes.InvalidArgument, "/etc"},
		{"dots", change(func(s *agentpb.Storage) { s.MountPoint = f.dir + "/run/../../etc" }), codes.InvalidArgument, "plain form"},
		{"negative size", change(func(s *agentpb.Storage) { s.Options = []string{"size=-1"} }), codes.InvalidArgument, "options"},
		{"option of another kind", change(func(s *agentpb.Storage) { s.Options = []string{"bind"} }), codes.InvalidArgument, "bind"},
		{"nonsense PCI path", change(func(s *agentpb.Storage) {
			s.Driver, s.Source, s.Fstype, s.DriverOptions, s.Options = "blk", "zz/99", "ext4", nil, nil
		}), codes.InvalidArgument, "PCI path"},
	}
}

func sandboxTables(f *guestFixture) map[string]badTable {
	create := func(s *agentpb.Storage) proto.Message {
		return &agentpb.CreateSandboxRequest{Storages: []*agentpb.Storage{s}}
	}
	return map[string]badTable{
		"CreateSandbox": {
			valid: &agentpb.CreateSandboxRequest{
				Hostname: "pod", SandboxId: "pod1", Dns: []string{"nameserver 10.0.0.1"}, GuestHookPath: "/hooks",
				Storages: []*agentpb.Storage{aStorage(f)}, KernelModules: []*agentpb.KernelModule{{Name: "dummy", Parameters: []string{"a=1"}}},
			},
			bad: append(badStorages(f, create),
				badInput{"path as sandbox", &agentpb.CreateSandboxRequest{SandboxId: "../pod"}, codes.InvalidArgument, "sandbox_id"},
				badInput{"another sandbox", &agentpb.CreateSandboxRequest{SandboxId: "pod2"}, codes.FailedPrecondition, "another id or hostname"},
				badInput{"host name of two words", &agentpb.CreateSandboxRequest{Hostname: "a b"}, codes.InvalidArgument, "hostname"},
				badInput{"relative hooks", &agentpb.CreateSandboxRequest{GuestHookPath: "hooks"}, codes.InvalidArgument, "guest_hook_path"},
				badInput{"module without name", &agentpb.CreateSandboxRequest{KernelModules: []*agentpb.KernelModule{{}}}, codes.InvalidArgument, "kernel_modules[0].name"},
			),
		},
		"SetPolicy": {
			valid: &agentpb.SetPolicyRequest{Policy: "package agent_policy"},
			bad: []badInput{
				{"no policy", &agentpb.SetPolicyRequest{}, codes.InvalidArgument, "policy"},
				{"no language", &agentpb.SetPolicyRequest{Policy: "this is no Rego"}, codes.InvalidArgument, "policy"},
				{"too long", &agentpb.SetPolicyRequest{Policy: "package agent_policy\n" + strings.Repeat("# \n", 6<<20)}, codes.InvalidArgument, "policy"},
			},
		},
		"Check":   {valid: &agentpb.CheckRequest{}, nothingMore: "any service is well"},
		"Version": {valid: &agentpb.CheckRequest{}, nothingMore: "any service has this version"},
	}
}

func aSpec() *agentpb.Spec {
	return &agentpb.Spec{
		Version: "1.0.2", Root: &agentpb.Root{Path: "/run/root"}, Hostname: "pod", Hooks: &agentpb.Hooks{},
		Process: &agentpb.Process{Args: []string{"/bin/true"}, Cwd: "/", User: &agentpb.User{}, Env: []string{"A=1"},
			Capabilities: &agentpb.LinuxCapabilities{}, Rlimits: []*agentpb.POSIXRlimit{{Type: "RLIMIT_CORE"}}},
		Mounts: []*agentpb.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}},
		Linux: &agentpb.Linux{Resources: &agentpb.LinuxResources{CPU: &agentpb.LinuxCPU{}, Memory: &agentpb.LinuxMemory{}},
			Namespaces: []*agentpb.LinuxNamespace{{Type: "ipc"}}, Seccomp: &agentpb.LinuxSeccomp{DefaultAction: "SCMP_ACT_ALLOW"}, CgroupsPath: "/c2"},
	}
}

func containerTables(f *guestFixture) map[string]badTable {
	create := func(change func(*agentpb.CreateContainerRequest)) proto.Message {
		r := &agentpb.CreateContainerRequest{ContainerId: "c2", ExecId: "c2", OCI: aSpec()}
		change(r)
		return r
	}
	withDevice := func(d *agentpb.Device) proto.Message {
		return create(func(r *agentpb.CreateContainerRequest) { r.Devices = []*agentpb.Device{d} })
	}
	aDevice := &agentpb.Device{Type: "blk", Id: "02/03", VmPath: "/dev/vda", ContainerPath: "/dev/x", Options: []string{"a"}}
	withStorage := func(s *agentpb.Storage) proto.Message {
		return create(func(r *agentpb.CreateContainerRequest) { r.Storages = []*agentpb.Storage{s} })
	}
	return map[string]badTable{
		"CreateContainer": {
			valid: create(func(r *agentpb.CreateContainerRequest) {
				r.Storages, r.Devices = []*agentpb.Storage{aStorage(f)}, []*agentpb.Device{aDevice}
				r.SharedMounts = []*agentpb.SharedMount{{Name: "a", SrcCtr: "a", DstCtr: "b", SrcPath: "/a", DstPath: "/b"}}
			}),
			bad: append(badStorages(f, withStorage), []badInput{
				{"no container", create(func(r *agentpb.CreateContainerRequest) { r.ContainerId = "" }), codes.InvalidArgument, "container_id"},
				{"path as container", create(func(r *agentpb.CreateContainerRequest) { r.ContainerId = "../c2" }), codes.InvalidArgument, "container_id"},
				{"a container that is there", create(func(r *agentpb.CreateContainerRequest) { r.ContainerId = "c1" }), codes.AlreadyExists, "c1"},
				{"no spec", create(func(r *agentpb.CreateContainerRequest) { r.OCI = nil }), codes.InvalidArgument, "OCI"},
				{"no process", create(func(r *agentpb.CreateContainerRequest) { r.OCI.Process = nil }), codes.InvalidArgument, "Process"},
				{"no root", create(func(r *agentpb.CreateContainerRequest) { r.OCI.Root = nil }), codes.InvalidArgument, "Root"},
				{"no linux", create(func(r *agentpb.CreateContainerRequest) { r.OCI.Linux = nil }), codes.InvalidArgument, "Linux"},
				{"no arguments", create(func(r *agentpb.CreateContainerRequest) { r.OCI.Process.Args = nil }), codes.InvalidArgument, "Args"},
				{"relative directory", create(func(r *agentpb.CreateContainerRequest) { r.OCI.Process.Cwd = "a" }), codes.InvalidArgument, "Cwd"},
				{"unknown namespace", create(func(r *agentpb.CreateContainerRequest) { r.OCI.Linux.Namespaces[0].Type = "soul" }), codes.InvalidArgument, "Namespaces"},
				{"device without type", withDevice(&agentpb.Device{ContainerPath: "/dev/x"}), codes.InvalidArgument, "type"},
				{"device of unknown type", withDevice(&agentpb.Device{Type: "tape", Id: "1", ContainerPath: "/dev/x"}), codes.Unimplemented, "tape"},
				{"device at a nonsense PCI path", withDevice(&agentpb.Device{Type: "blk", Id: "zz/99", ContainerPath: "/dev/x"}), codes.InvalidArgument, "PCI path"},
			}...),
		},
		"StartContainer":  onContainer(codes.InvalidArgument, func(id string) proto.Message { return &agentpb.StartContainerRequest{ContainerId: id} }),
		"RemoveContainer": onContainer(codes.NotFound, func(id string) proto.Message { return &agentpb.RemoveContainerRequest{ContainerId: id} }),
		"UpdateContainer": onContainer(codes.InvalidArgument, func(id string) proto.Message {
			return &agentpb.UpdateContainerRequest{ContainerId: id, Resources: &agentpb.LinuxResources{CPU: &agentpb.LinuxCPU{}}}
		}),
		"PauseContainer":  onContainer(codes.InvalidArgument, func(id string) proto.Message { return &agentpb.PauseContainerRequest{ContainerId: id} }),
		"ResumeContainer": onContainer(codes.InvalidArgument, func(id string) proto.Message { return &agentpb.ResumeContainerRequest{ContainerId: id} }),
		"StatsContainer":  onContainer(codes.InvalidArgument, func(id string) proto.Message { return &agentpb.StatsContainerRequest{ContainerId: id} }),
		"GetDiagnosticData": onContainer(codes.InvalidArgument, func(id string) proto.Message {
			return &agentpb.GetDiagnosticDataRequest{ContainerId: id, LogType: "termination_log"}
		}, badInput{"unknown log", &agentpb.GetDiagnosticDataRequest{ContainerId: "c1", LogType: "diary"}, codes.InvalidArgument, "log_type"},
			badInput{"container without such a log", &agentpb.GetDiagnosticDataRequest{ContainerId: "c1", LogType: "termination_log"}, codes.FailedPrecondition, "terminationMessagePath"}),
	}
}

// onProcess also tries process ids.
func onProcess(make func(id, exec string) proto.Message, more ...badInput) badTable {
	return onContainer(codes.InvalidArgument, func(id string) proto.Message { return make(id, "") }, append([]badInput{
		{"path as process", make("c1", "../e"), codes.InvalidArgument, "exec_id"},
		{"unknown process", make("c1", "e9"), codes.NotFound, "exec"},
	}, more...)...)
}

func processTables() map[string]badTable {
	exec := func(change func(*agentpb.ExecProcessRequest)) proto.Message {
		r := &agentpb.ExecProcessRequest{ContainerId: "c1", ExecId: "e1", Process: aSpec().Process}
		change(r)
		return r
	}
	return map[string]badTable{
		"ExecProcess": onContainer(codes.InvalidArgument, func(id string) proto.Message {
			return exec(func(r *agentpb.ExecProcessRequest) { r.ContainerId = id })
		},
			badInput{"no id", exec(func(r *agentpb.ExecProcessRequest) { r.ExecId = "" }), codes.InvalidArgument, "exec_id"},
			badInput{"path as id", exec(func(r *agentpb.ExecProcessRequest) { r.ExecId = "../e" }), codes.InvalidArgument, "exec_id"},
			badInput{"no process", exec(func(r *agentpb.ExecProcessRequest) { r.Process = nil }), codes.InvalidArgument, "process"},
			badInput{"no arguments", exec(func(r *agentpb.ExecProcessRequest) { r.Process.Args = nil }), codes.InvalidArgument, "args"},
			badInput{"unknown limit", exec(func(r *agentpb.ExecProcessRequest) { r.Process.Rlimits[0].Type = "RLIMIT_FUN" }), codes.InvalidArgument, "RLIMIT_FUN"},
		),
		"SignalProcess": onProcess(func(id, exec string) proto.Message {
			return &agentpb.SignalProcessRequest{ContainerId: id, ExecId: exec, Signal: 10}
		}, badInput{"no signal", &agentpb.SignalProcessRequest{ContainerId: "c1", ExecId: "c1", Signal: 4096}, codes.InvalidArgument, "signal"}),
		"WaitProcess": onProcess(func(id, exec string) proto.Message { return &agentpb.WaitProcessRequest{ContainerId: id, ExecId: exec} }),
		"WriteStdin": onProcess(func(id, exec string) proto.Message {
			return &agentpb.WriteStreamRequest{ContainerId: id, ExecId: exec, Data: []byte("a")}
		}),
		"ReadStdout": onProcess(func(id, exec string) proto.Message {
			return &agentpb.ReadStreamRequest{ContainerId: id, ExecId: exec, Len: 1}
		}),
		"ReadStderr": onProcess(func(id, exec string) proto.Message {
			return &agentpb.ReadStreamRequest{ContainerId: id, ExecId: exec, Len: 1}
		}),
		"CloseStdin": onProcess(func(id, exec string) proto.Message { return &agentpb.CloseStdinRequest{ContainerId: id, ExecId: exec} }),
		"TtyWinResize": onProcess(func(id, exec string) proto.Message {
			return &agentpb.TtyWinResizeRequest{ContainerId: id, ExecId: exec, Row: 1, Column: 1}
		}, badInput{"no terminal", &agentpb.TtyWinResizeRequest{ContainerId: "c1", Row: 1, Column: 1}, codes.Unavailable, "tty"}),
	}
}

func networkTables() map[string]badTable {
	iface := func(change func(*typespb.Interface)) proto.Message {
		i := &typespb.Interface{Name: "eth0", Mtu: 1400, IPAddresses: []*typespb.IPAddress{{Address: "10.9.0.2", Mask: "24"}}}
		change(i)
		return &agentpb.UpdateInterfaceRequest{Interface: i}
	}
	route := func(rs ...*typespb.Route) proto.Message {
		return &agentpb.UpdateRoutesRequest{Routes: &agentpb.Routes{Routes: rs}}
	}
	neighbor := func(n *typespb.ARPNeighbor) proto.Message {
		return &agentpb.AddARPNeighborsRequest{Neighbors: &agentpb.ARPNeighbors{ARPNeighbors: []*typespb.ARPNeighbor{n}}}
	}
	many := make([]*typespb.Route, 2000)
	for i := range many {
		many[i] = &typespb.Route{Dest: "10.1.0.0/16", Device: "eth0"}
	}
	return map[string]badTable{
		"UpdateInterface": {valid: iface(func(*typespb.Interface) {}), bad: []badInput{
			{"no interface", &agentpb.UpdateInterfaceRequest{}, codes.InvalidArgument, "interface"},
			{"no name", iface(func(i *typespb.Interface) { i.Name = "" }), codes.InvalidArgument, "name"},
			{"path as name", iface(func(i *typespb.Interface) { i.Name = "../eth0" }), codes.InvalidArgument, "name"},
			{"unknown interface", iface(func(i *typespb.Interface) { i.Name = "eth7" }), codes.NotFound, "Link not found"},
			{"no hardware address", iface(func(i *typespb.Interface) { i.HwAddr = "zz:zz" }), codes.InvalidArgument, "hwAddr"},
			{"no address", iface(func(i *typespb.Interface) { i.IPAddresses[0].Address = "10.0.0.300" }), codes.InvalidArgument, "IPAddresses[0].address"},
			{"negative mask", iface(func(i *typespb.Interface) { i.IPAddresses[0].Mask = "-1" }), codes.InvalidArgument, "mask"},
			{"address of the loopback", iface(func(i *typespb.Interface) { i.IPAddresses[0].Address = "127.0.0.2" }), codes.InvalidArgument, "address"},
			{"endless mtu", iface(func(i *typespb.Interface) { i.Mtu = math.MaxUint64 }), codes.InvalidArgument, "mtu"},
			{"nonsense PCI path", iface(func(i *typespb.Interface) { i.DevicePath = "zz/99" }), codes.InvalidArgument, "devicePath"},
			{"device that never comes", iface(func(i *typespb.Interface) { i.DevicePath = "02/03" }), codes.NotFound, "Link not found"},
			{"the loopback", iface(func(i *typespb.Interface) { i.Name = "lo" }), codes.PermissionDenied, "name"},
		}},
		"UpdateRoutes": {valid: route(&typespb.Route{Dest: "10.1.0.0/16", Device: "eth0"}), bad: []badInput{
			{"no routes", &agentpb.UpdateRoutesRequest{}, codes.InvalidArgument, "routes"},
			{"too many", route(many...), codes.InvalidArgument, "Routes"},
			{"no device", route(&typespb.Route{Dest: "10.1.0.0/16"}), codes.InvalidArgument, "Routes[0].device"},
			{"unknown device", route(&typespb.Route{Dest: "10.1.0.0/16", Device: "eth7"}), codes.NotFound, "Routes[0]"},
			{"no network", route(&typespb.Route{Dest: "10.1.0.0/-1", Device: "eth0"}), codes.InvalidArgument, "Routes[0].dest"},
			{"no gateway", route(&typespb.Route{Gateway: "gw", Device: "eth0"}), codes.InvalidArgument, "Routes[0].gateway"},
			{"gateway of the other family", route(&typespb.Route{Dest: "10.1.0.0/16", Gateway: "fd00::1", Device: "eth0"}), codes.InvalidArgument, "Routes[0].gateway"},
			{"network as source", route(&typespb.Route{Dest: "10.1.0.0/16", Source: "10.0.0.0/8", Device: "eth0"}), codes.InvalidArgument, "Routes[0].source"},
			{"endless scope", route(&typespb.Route{Dest: "10.1.0.0/16", Scope: 256, Device: "eth0"}), codes.InvalidArgument, "Routes[0].scope"},
			{"to the loopback", route(&typespb.Route{Dest: "127.0.0.0/8", Device: "eth0"}), codes.PermissionDenied, "Routes[0].dest"},
		}},
		"AddARPNeighbors": {valid: neighbor(&typespb.ARPNeighbor{ToIPAddress: &typespb.IPAddress{Address: "10.9.0.1"}, Device: "eth0"}), bad: []badInput{
			{"no neighbours", &agentpb.AddARPNeighborsRequest{}, codes.InvalidArgument, "neighbors"},
			{"no address", neighbor(&typespb.ARPNeighbor{Device: "eth0"}), codes.InvalidArgument, "ARPNeighbors[0].toIPAddress"},
			{"no device", neighbor(&typespb.ARPNeighbor{ToIPAddress: &typespb.IPAddress{Address: "10.9.0.1"}}), codes.InvalidArgument, "ARPNeighbors[0].device"},
			{"unknown device", neighbor(&typespb.ARPNeighbor{ToIPAddress: &typespb.IPAddress{Address: "10.9.0.1"}, Device: "eth7"}), codes.NotFound, "ARPNeighbors[0]"},
			{"no hardware address", neighbor(&typespb.ARPNeighbor{ToIPAddress: &typespb.IPAddress{Address: "10.9.0.1"}, Device: "eth0", Lladdr: "zz"}), codes.InvalidArgument, "ARPNeighbors[0].lladdr"},
		}},
		"SetIPTables": {valid: &agentpb.SetIPTablesRequest{Data: []byte("*nat\nCOMMIT\n")}, bad: []badInput{
			{"no rules", &agentpb.SetIPTablesRequest{}, codes.InvalidArgument, "data"},
			{"zero byte", &agentpb.SetIPTablesRequest{Data: []byte("*nat\n\x00COMMIT\n")}, codes.InvalidArgument, "data"},
			{"no table", &agentpb.SetIPTablesRequest{Data: []byte("*nat\n")}, codes.InvalidArgument, "data"},
		}},
	}
}

func fileTables(f *guestFixture) map[string]badTable {
	shared := f.deps.Copier.Root + "/"
	file := func(change func(*agentpb.CopyFileRequest)) proto.Message {
		r := &agentpb.CopyFileRequest{Path: shared + "a", FileSize: 1, FileMode: unix.S_IFREG | 0o644, Data: []byte("a")}
		change(r)
		return r
	}
	ephemeral := func(change func(*agentpb.Storage)) proto.Message {
		s := aStorage(f)
		s.MountPoint = f.volume
		change(s)
		return &agentpb.UpdateEphemeralMountsRequest{Storages: []*agentpb.Storage{s}}
	}
	return map[string]badTable{
		"CopyFile": {valid: file(func(*agentpb.CopyFileRequest) {}), bad: []badInput{
			{"no path", file(func(r *agentpb.CopyFileRequest) { r.Path = "" }), codes.InvalidArgument, "path"},
			{"outside", file(func(r *agentpb.CopyFileRequest) { r.Path = "/etc/passwd" }), codes.InvalidArgument, "path"},
			{"dots", file(func(r *agentpb.CopyFileRequest) { r.Path = shared + "../../a" }), codes.InvalidArgument, "path"},
			{"the directory itself", file(func(r *agentpb.CopyFileRequest) { r.Path = shared }), codes.InvalidArgument, "path"},
			{"negative size", file(func(r *agentpb.CopyFileRequest) { r.FileSize = -1 }), codes.InvalidArgument, "file_size"},
			{"negative offset", file(func(r *agentpb.CopyFileRequest) { r.Offset = -1 }), codes.InvalidArgument, "offset"},
			{"beyond the end", file(func(r *agentpb.CopyFileRequest) { r.Data = []byte("ab") }), codes.InvalidArgument, "data"},
			{"negative owner", file(func(r *agentpb.CopyFileRequest) { r.Uid = -1 }), codes.InvalidArgument, "uid"},
			{"device", file(func(r *agentpb.CopyFileRequest) { r.FileMode = unix.S_IFBLK | 0o600 }), codes.InvalidArgument, "file_mode"},
			{"socket", file(func(r *agentpb.CopyFileRequest) { r.FileMode = unix.S_IFSOCK | 0o600 }), codes.InvalidArgument, "file_mode"},
			{"link to nothing", file(func(r *agentpb.CopyFileRequest) { r.FileMode, r.Data = unix.S_IFLNK, nil }), codes.InvalidArgument, "data"},
			{"link with a zero byte", file(func(r *agentpb.CopyFileRequest) { r.FileMode, r.Data = unix.S_IFLNK, []byte("a\x00") }), codes.InvalidArgument, "data"},
		}},
		"UpdateEphemeralMounts": {valid: ephemeral(func(*agentpb.Storage) {}), bad: []badInput{
			{"wrong driver", ephemeral(func(s *agentpb.Storage) { s.Driver = "local" }), codes.InvalidArgument, "local"},
			{"outside", ephemeral(func(s *agentpb.Storage) { s.MountPoint = "/etc" }), codes.InvalidArgument, "/etc"},
			{"unknown storage", ephemeral(func(s *agentpb.Storage) { s.MountPoint += "2" }), codes.FailedPrecondition, "volume2"},
			{"another file system", ephemeral(func(s *agentpb.Storage) { s.Fstype = "hugetlbfs" }), codes.FailedPrecondition, "volume"},
			{"negative size", ephemeral(func(s *agentpb.Storage) { s.Options = []string{"remount", "size=-1"} }), codes.InvalidArgument, "options"},
		}},
		"GetVolumeStats": {valid: &agentpb.VolumeStatsRequest{VolumeGuestPath: f.volume}, bad: []badInput{
			{"no path", &agentpb.VolumeStatsRequest{}, codes.InvalidArgument, "volume_guest_path"},
			{"outside", &agentpb.VolumeStatsRequest{VolumeGuestPath: "/etc"}, codes.InvalidArgument, "volume_guest_path"},
			{"dots", &agentpb.VolumeStatsRequest{VolumeGuestPath: f.volume + "/../../../etc"}, codes.InvalidArgument, "volume_guest_path"},
			{"no volume", &agentpb.VolumeStatsRequest{VolumeGuestPath: f.dir + "/run/shared"}, codes.NotFound, "volume_guest_path"},
		}},
		"ResizeVolume": {valid: &agentpb.ResizeVolumeRequest{VolumeGuestPath: f.volume, Size: 1}, bad: []badInput{
			{"no path", &agentpb.ResizeVolumeRequest{Size: 1}, codes.InvalidArgument, "volume_guest_path"},
			{"outside", &agentpb.ResizeVolumeRequest{VolumeGuestPath: "/", Size: 1}, codes.InvalidArgument, "volume_guest_path"},
			{"no volume", &agentpb.ResizeVolumeRequest{VolumeGuestPath: f.dir + "/run/shared", Size: 1}, codes.NotFound, "volume_guest_path"},
			{"no size", &agentpb.ResizeVolumeRequest{VolumeGuestPath: f.volume}, codes.InvalidArgument, "size"},
			{"negative size", &agentpb.ResizeVolumeRequest{VolumeGuestPath: f.volume, Size: math.MaxUint64}, codes.InvalidArgument, "size"},
			{"file system of memory", &agentpb.ResizeVolumeRequest{VolumeGuestPath: f.volume, Size: 2 << 20}, codes.Unimplemented, "volume_guest_path"},
		}},
	}
}

func machineTables(*guestFixture) map[string]badTable {
	return map[string]badTable{
		"OnlineCPUMem": {bad: []badInput{
			{"too many", &agentpb.OnlineCPUMemRequest{NbCpus: math.MaxUint32}, codes.InvalidArgument, "nb_cpus"},
		}},
		"MemHotplugByProbe": {valid: &agentpb.MemHotplugByProbeRequest{}, bad: []badInput{
			{"too many", &agentpb.MemHotplugByProbeRequest{MemHotplugProbeAddr: make([]uint64, 20000)}, codes.InvalidArgument, "memHotplugProbeAddr"},
		}},
		"ReseedRandomDev": {valid: &agentpb.ReseedRandomDevRequest{Data: []byte("a")}, bad: []badInput{
			{"nothing", &agentpb.ReseedRandomDevRequest{}, codes.InvalidArgument, "data"},
		}},
		"SetGuestDateTime": {bad: []badInput{
			{"epoch", &agentpb.SetGuestDateTimeRequest{}, codes.InvalidArgument, "Sec"},
			{"before the epoch", &agentpb.SetGuestDateTimeRequest{Sec: -1}, codes.InvalidArgument, "Sec"},
			{"end of days", &agentpb.SetGuestDateTimeRequest{Sec: math.MaxInt64}, codes.InvalidArgument, "Sec"},
			{"negative microseconds", &agentpb.SetGuestDateTimeRequest{Sec: 1893456000, Usec: -1}, codes.InvalidArgument, "Usec"},
		}},
		"AddSwap": {valid: &agentpb.AddSwapRequest{PCIPath: []uint32{2}}, bad: []badInput{
			{"no path", &agentpb.AddSwapRequest{}, codes.InvalidArgument, "PCIPath"},
			{"nonsense PCI path", &agentpb.AddSwapRequest{PCIPath: []uint32{2, 99}}, codes.InvalidArgument, "PCIPath"},
			{"endless PCI path", &agentpb.AddSwapRequest{PCIPath: make([]uint32, 1000)}, codes.InvalidArgument, "PCIPath"},
			{"disk that never comes", &agentpb.AddSwapRequest{PCIPath: []uint32{2, 3}}, codes.Unavailable, "PCIPath"},
		}},
		"AddSwapPath": {valid: &agentpb.AddSwapPathRequest{Path: "/dev/vda"}, bad: []badInput{
			{"no path", &agentpb.AddSwapPathRequest{}, codes.InvalidArgument, "path"},
			{"no disk", &agentpb.AddSwapPathRequest{Path: "/etc/passwd"}, codes.InvalidArgument, "path"},
			{"dots", &agentpb.AddSwapPathRequest{Path: "/dev/../etc/passwd"}, codes.InvalidArgument, "path"},
		}},
		"MemAgentMemcgSet": {bad: []badInput{
			{"swappiness", &agentpb.MemAgentMemcgConfig{SwappinessMax: ptrTo[uint32](201)}, codes.InvalidArgument, "swappiness_max"},
			{"no period", &agentpb.MemAgentMemcgConfig{PeriodSecs: ptrTo[uint64](0)}, codes.InvalidArgument, "period_secs"},
			{"pressure", &agentpb.MemAgentMemcgConfig{PeriodPsiPercentLimit: ptrTo[uint32](101)}, codes.InvalidArgument, "period_psi_percent_limit"},
			{"pressure of eviction", &agentpb.MemAgentMemcgConfig{EvictionPsiPercentLimit: ptrTo[uint32](101)}, codes.InvalidArgument, "eviction_psi_percent_limit"},
		}},
		"MemAgentCompactSet": {bad: []badInput{
			{"negative time", &agentpb.MemAgentCompactConfig{CompactSecMax: ptrTo[int64](-1)}, codes.InvalidArgument, "compact_sec_max"},
			{"order", &agentpb.MemAgentCompactConfig{CompactOrder: ptrTo[uint32](99)}, codes.InvalidArgument, "compact_order"},
			{"pressure", &agentpb.MemAgentCompactConfig{CompactPsiPercentLimit: ptrTo[uint32](101)}, codes.InvalidArgument, "compact_psi_percent_limit"},
		}},
	}
}
