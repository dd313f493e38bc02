package rpc

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/coffer-cc/coffer/agent/clock"
	"github.com/coffer-cc/coffer/agent/config"
	"github.com/coffer-cc/coffer/agent/guest"
	"github.com/coffer-cc/coffer/agent/memagent"
	"github.com/coffer-cc/coffer/agent/network"
	"github.com/coffer-cc/coffer/agent/policy"
	"github.com/coffer-cc/coffer/mount"
	"github.com/coffer-cc/coffer/mount/device"
	"github.com/coffer-cc/coffer/protos/agentpb"
)

// TestBadInput sends to every method of the protocol what it must not take, and
// sees the right code, a message that names the field, and nothing changed. The
// methods come from the descriptors: one that has no table fails.
func TestBadInput(t *testing.T) {
	f := newGuest(t)
	tables := badInputs(f)
	for _, service := range []struct {
		descriptor protoreflect.ServiceDescriptor
		methods    map[string]func(context.Context, func(any) error) (any, error)
	}{
		{agentpb.File_protos_agent_proto.Services().ByName("AgentService"), plainMethods(f.agentMethods())},
		{agentpb.File_protos_health_proto.Services().ByName("Health"), plainMethods(f.healthMethods())},
	} {
		all := service.descriptor.Methods()
		for i := range all.Len() {
			m := all.Get(i)
			name := string(m.Name())
			table, known := tables[name]
			if !known && hasInput(m.Input()) {
				t.Errorf("%s has no table of bad input", name)
			}
			if known && len(table.bad) == 0 && table.nothingMore == "" {
				t.Errorf("%s: the table is empty and does not say why", name)
			}
			t.Run(name, func(t *testing.T) { f.refuses(t, service.methods[name], table) })
			delete(tables, name)
		}
	}
	for name := range tables {
		t.Errorf("there is no method %s", name)
	}
}

// badTable is what a method must refuse. What any method refuses is derived from
// valid: zero bytes and endless text in each string, endless lists and bytes.
type badTable struct {
	valid       proto.Message // passes the checks of shape
	bad         []badInput
	nothingMore string // why bad is empty
}

type badInput struct {
	name string
	req  proto.Message
	code codes.Code
	text string // in the message, which names the field
}

// hasInput tells whether a message can carry nonsense. Empty ones and switches
// cannot.
func hasInput(m protoreflect.MessageDescriptor) bool {
	for i := range m.Fields().Len() {
		if f := m.Fields().Get(i); f.IsList() || f.IsMap() || f.Kind() != protoreflect.BoolKind {
			return true
		}
	}
	return false
}

func (f *guestFixture) refuses(t *testing.T, method func(context.Context, func(any) error) (any, error), table badTable) {
	cases := table.bad
	if table.valid != nil {
		cases = append(derived(table.valid), cases...)
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			before := f.state(t)
			_, err := method(context.Background(), func(v any) error {
				proto.Merge(v.(proto.Message), c.req)
				return nil
			})
			if status.Code(err) != c.code || !strings.Contains(status.Convert(err).Message(), c.text) {
				t.Errorf("got %.300v\nwant %v with %q", err, c.code, c.text)
			}
			if after := f.state(t); after != before {
				t.Errorf("state changed from\n%s\nto\n%s", before, after)
			}
		})
	}
}

// endless is longer than any string, list or array of bytes may be.
const endless = 2 << 20

// derived makes bad requests out of a good one, by the kinds of its fields.
func derived(valid proto.Message) []badInput {
	var out []badInput
	walkFields(valid.ProtoReflect(), "", func(path []protoreflect.FieldDescriptor, name string) {
		fd := path[len(path)-1]
		add := func(kind string, change func(protoreflect.Message)) {
			req := proto.Clone(valid)
			change(holder(req.ProtoReflect(), path))
			out = append(out, badInput{name + " " + kind, req, codes.InvalidArgument, string(fd.Name())})
		}
		switch {
		case fd.FullName() == "grpc.SetPolicyRequest.policy" || fd.FullName() == "grpc.CopyFileRequest.data":
			// Bounded by the message alone; what they hold is judged elsewhere.
		case fd.IsList():
			add("endless", func(m protoreflect.Message) {
				l := m.Mutable(fd).List()
				for range 1<<16 + 1 {
					l.Append(l.NewElement())
				}
			})
		case fd.IsMap():
			add("endless", func(m protoreflect.Message) {
				for i := range 1<<16 + 1 {
					m.Mutable(fd).Map().Set(protoreflect.ValueOfString(fmt.Sprint("k", i)).MapKey(), fd.MapValue().Default())
				}
			})
		case fd.Kind() == protoreflect.StringKind:
			add("with a zero byte", func(m protoreflect.Message) { m.Set(fd, protoreflect.ValueOfString("/a\x00b")) })
			add("endless", func(m protoreflect.Message) { m.Set(fd, protoreflect.ValueOfString("/"+strings.Repeat("a", endless))) })
		case fd.Kind() == protoreflect.BytesKind:
			add("endless", func(m protoreflect.Message) { m.Set(fd, protoreflect.ValueOfBytes(make([]byte, endless))) })
		}
	})
	return out
}

// walkFields visits the fields of a message, those of sub-messages that are set
// included; of a list the first element stands for all.
func walkFields(m protoreflect.Message, prefix string, visit func(path []protoreflect.FieldDescriptor, name string)) {
	var walk func(m protoreflect.Message, path []protoreflect.FieldDescriptor, prefix string)
	walk = func(m protoreflect.Message, path []protoreflect.FieldDescriptor, prefix string) {
		fields := m.Descriptor().Fields()
		for i := range fields.Len() {
			fd := fields.Get(i)
			here := append(path[:len(path):len(path)], fd)
			name := prefix + string(fd.Name())
			visit(here, name)
			if fd.Message() == nil || fd.IsMap() || !m.Has(fd) {
				continue
			}
			if !fd.IsList() {
				walk(m.Get(fd).Message(), here, name+".")
			} else if m.Get(fd).List().Len() > 0 {
				walk(m.Get(fd).List().Get(0).Message(), here, name+"[0].")
			}
		}
	}
	walk(m, nil, prefix)
}

// holder is the message that holds the last field of path.
func holder(m protoreflect.Message, path []protoreflect.FieldDescriptor) protoreflect.Message {
	for _, fd := range path[:len(path)-1] {
		if fd.IsList() {
			m = m.Mutable(fd).List().Get(0).Message()
		} else {
			m = m.Mutable(fd).Message()
		}
	}
	return m
}

// guestFixture is a fixture whose parts are all there: a network namespace with
// a card, the real policy engine, a container and a mounted volume.
type guestFixture struct {
	*fixture
	volume string
}

func newGuest(t *testing.T) *guestFixture {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root for a network namespace and a container")
	}
	// The handlers run in this goroutine, and iptables in this namespace.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skip("cannot make a network namespace:", err)
	}
	f := &guestFixture{fixture: newFixture(t, nil)}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "eth0"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "peer0"}); err != nil {
		t.Skip("cannot make a link:", err)
	}
	finder := &device.Finder{Sys: t.TempDir(), Timeout: 1}
	stack, err := network.Open(finder)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stack.Close)
	engine := policy.New()
	if err := engine.Replace(t.Context(), allowAll()); err != nil {
		t.Fatal(err)
	}
	f.deps.Network, f.deps.Policy, f.gate.policy = stack, engine, engine
	f.deps.Swap, f.deps.Volumes = guest.Swap{Devices: finder}, guest.Volumes{Mounts: f.storages}
	memory := config.Default().MemAgent
	memory.Enable = true
	f.deps.MemAgent, f.deps.Clock = memagent.New(memory, memagent.DefaultPaths()), clock.New()
	a := f.agent(t)
	f.container(t, a, "c1", "sleep 1000")
	f.volume = filepath.Join(f.dir, "run", "volume")
	_, err = a.CreateSandbox(t.Context(), &agentpb.CreateSandboxRequest{Storages: []*agentpb.Storage{
		{Driver: "ephemeral", Source: "tmpfs", Fstype: "tmpfs", MountPoint: f.volume, Options: []string{"size=1m"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func allowAll() string {
	text := "package agent_policy\n"
	methods := agentpb.File_protos_agent_proto.Services().ByName("AgentService").Methods()
	seen := map[string]bool{}
	for i := range methods.Len() {
		if name := string(methods.Get(i).Input().Name()); !seen[name] {
			seen[name] = true
			text += "default " + name + " := true\n"
		}
	}
	return text
}

// state is what a refused request must leave as it was.
func (f *guestFixture) state(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	table, err := mount.Table(f.dir)
	if err != nil {
		t.Fatal(err)
	}
	links, err := f.deps.Network.ListInterfaces(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	routes, err := f.deps.Network.ListRoutes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	swaps, _ := os.ReadFile("/proc/swaps") // absent without swap
	fmt.Fprintf(&b, "mounts %v\ncontainers %v\nlinks %v\nroutes %v\n%s", table, f.deps.Sandbox.List(), links, routes, swaps)
	err = filepath.WalkDir(f.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil {
			fmt.Fprintln(&b, path, info.Mode(), info.Size())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
