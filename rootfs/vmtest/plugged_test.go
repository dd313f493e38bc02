package vmtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/coffer-cc/coffer/protos/agentpb"
	"github.com/coffer-cc/coffer/protos/typespb"
	"github.com/coffer-cc/coffer/rootfs/image"
	"github.com/coffer-cc/coffer/rootfs/vm"
)

// TestPlugged makes a guest use what is plugged into it, and turns the knobs
// that need a kernel of their own: the calls go through the protocol, and what
// they did is seen from inside a container.
func TestPlugged(t *testing.T) {
	ownMachine(t)
	g := bootPlugged(t)
	for _, tc := range []struct {
		name string
		run  func(*testing.T, *Guest)
	}{
		{"network", plugNetwork},
		{"swap", plugSwap},
		{"volume", resizeVolume},
		{"memory", plugMemory},
		{"processors", onlineProcessors},
		{"iptables", restoreIPTables},
		{"random", reseed},
		{"mem-agent", tuneMemAgent},
		{"clock", setClock}, // last: it confuses every deadline in the guest
	} {
		t.Run(tc.name, func(t *testing.T) { tc.run(t, g) })
	}
}

// bootPlugged boots with one of two processors on line, room for the rest, and
// an image that holds iptables.
func bootPlugged(t *testing.T) *Guest {
	t.Helper()
	c := sharedConfig(t)
	own := Variant{
		Modules: []string{"nf_tables", "nft_compat", "nft_chain_nat", "nft_redir", "xt_tcpudp", "xt_REDIRECT", "xt_nat"},
		Add:     iptables(t),
	}.Build(t)
	c.Kernel, c.Initrd = own.Kernel, own.Initrd
	c.CPUs = 2
	c.Words = append(c.Words, "maxcpus=1", "memhp_default_state=offline", "agent.mem_agent_enable=1", "agent.mem_agent_memcg_disable=true", "agent.mem_agent_compact_disable=true")
	c.Room = vm.Room{Memory: 512, Bridge: true}
	g := Boot(t, c)
	g.createSandbox(t, "pod")
	return g
}

// iptables are the programs of this machine, under the names that an image
// gives them by its alternatives, with the extensions that the rules use.
func iptables(t *testing.T) []image.Addition {
	t.Helper()
	add := hostProgram(t, "xtables-nft-multi")
	program := add[0].Source
	add = add[1:]
	for _, name := range []string{"iptables-save", "iptables-restore", "ip6tables-save", "ip6tables-restore"} {
		add = append(add, image.Addition{Source: program, Target: "/usr/sbin/" + name})
	}
	for _, name := range []string{"libxt_tcp.so", "libxt_REDIRECT.so", "libip6t_REDIRECT.so", "libipt_REDIRECT.so", "libxt_standard.so"} {
		found, err := filepath.Glob("/usr/lib/*/xtables/" + name)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range found {
			add = append(add, image.Addition{Source: path, Target: path})
		}
	}
	return add
}

// in runs a line of shell in a container and returns what it printed.
func (g *Guest) in(t *testing.T, id, line string) string {
	t.Helper()
	return strings.TrimSpace(g.run(t, id, "sh", "-c", line))
}

// plugNetwork does what a shim does with a card of a running pod.
func plugNetwork(t *testing.T, g *Guest) {
	const mac = "52:54:00:00:00:04"
	want := &typespb.Interface{
		Name: "net1", HwAddr: mac, DevicePath: "02/04", Mtu: 1400,
		IPAddresses: []*typespb.IPAddress{{Address: "10.0.2.15", Mask: "24"}, {Family: typespb.IPFamily_v6, Address: "fec0::15", Mask: "64"}},
	}
	ask := func() error {
		_, err := g.Agent.UpdateInterface(t.Context(), &agentpb.UpdateInterfaceRequest{Interface: want})
		return err
	}
	if err := ask(); !strings.Contains(status.Convert(err).Message(), "Link not found") {
		t.Errorf("before the card is there: %v", err)
	}
	if err := g.PlugNetwork(t.Context(), "net1", vm.Network{Slot: 4, MAC: mac, Restrict: true}); err != nil {
		t.Fatal(err)
	}
	g.eventually(t, "the card is configured", func() bool { return ask() == nil })
	routes := call(t, g.Agent.UpdateRoutes, &agentpb.UpdateRoutesRequest{Routes: &agentpb.Routes{Routes: []*typespb.Route{
		{Dest: "", Gateway: "10.0.2.2", Device: "net1"}, {Gateway: "fec0::2", Device: "net1", Family: typespb.IPFamily_v6},
	}}})
	for _, gateway := range []string{"10.0.2.2", "fec0::2"} {
		if !slices.ContainsFunc(routes.Routes, func(r *typespb.Route) bool { return r.Gateway == gateway && r.Device == "net1" }) {
			t.Errorf("no route by %s in %v", gateway, routes.Routes)
		}
	}
	call(t, g.Agent.AddARPNeighbors, &agentpb.AddARPNeighborsRequest{Neighbors: &agentpb.ARPNeighbors{ARPNeighbors: []*typespb.ARPNeighbor{
		{ToIPAddress: &typespb.IPAddress{Address: "10.0.2.77"}, Device: "net1", Lladdr: "02:00:00:00:00:77"},
	}}})
	got := g.in(t, "see-net", "cat /sys/class/net/net1/mtu /sys/class/net/net1/address /proc/net/arp; ping -c 1 -W 20 10.0.2.2")
	for _, text := range []string{"1400", mac, "10.0.2.77", "02:00:00:00:00:77", "1 packets received"} {
		if !strings.Contains(got, text) {
			t.Errorf("%q is missing in\n%s", text, got)
		}
	}
	all := call(t, g.Agent.ListInterfaces, &agentpb.ListInterfacesRequest{})
	if !slices.ContainsFunc(all.Interfaces, func(i *typespb.Interface) bool {
		return i.Name == "net1" && i.Mtu == 1400 && i.HwAddr == strings.ToUpper(mac)
	}) {
		t.Errorf("interfaces %v", all.Interfaces)
	}
}

func plugSwap(t *testing.T, g *Guest) {
	path := blank(t, 64*mebibyte)
	if out, err := exec.Command("mkswap", path).CombinedOutput(); err != nil {
		t.Fatalf("mkswap: %v: %s", err, out)
	}
	if err := g.PlugDisk(t.Context(), "swap", vm.Disk{Path: path, Slot: 5}); err != nil {
		t.Fatal(err)
	}
	call(t, g.Agent.AddSwap, &agentpb.AddSwapRequest{PCIPath: []uint32{2, 5}})
	if got := g.in(t, "see-swap", "cat /proc/swaps"); !strings.Contains(got, "/dev/vd") || !strings.Contains(got, "65532") {
		t.Errorf("swap is\n%s", got)
	}
	_, err := g.Agent.AddSwapPath(t.Context(), &agentpb.AddSwapPathRequest{Path: "/dev/vdb"})
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second time: %v", err)
	}
}

// resizeVolume grows an ext4 that a container has mounted.
func resizeVolume(t *testing.T, g *Guest) {
	path := blank(t, 64*mebibyte)
	if out, err := exec.Command("mkfs.ext4", "-q", path).CombinedOutput(); err != nil {
		t.Fatalf("mkfs: %v: %s", err, out)
	}
	if err := g.PlugDisk(t.Context(), "volume", vm.Disk{Path: path, Slot: 6}); err != nil {
		t.Fatal(err)
	}
	const place = "/run/kata-containers/sandbox/storage/volume"
	spec := containerSpec("user", "sh", "-c", "echo kept > /data/file; cat; cat /data/file")
	spec.Mounts = append(spec.Mounts, &agentpb.Mount{Destination: "/data", Source: place, Type: "bind", Options: []string{"rbind", "rw"}})
	g.start(t, "user", spec, &agentpb.Storage{Driver: "blk", Source: "02/06", Fstype: "ext4", MountPoint: place})
	total := func() uint64 {
		t.Helper()
		r := call(t, g.Agent.GetVolumeStats, &agentpb.VolumeStatsRequest{VolumeGuestPath: place})
		if len(r.Usage) != 2 || r.Usage[0].Unit != agentpb.VolumeUsage_BYTES || r.Usage[1].Unit != agentpb.VolumeUsage_INODES ||
			r.Usage[0].Used+r.Usage[0].Available != r.Usage[0].Total || r.VolumeCondition.GetMessage() != "OK" {
			t.Errorf("stats %v", r)
		}
		return r.Usage[0].Total
	}
	before := total()
	resize := func() error {
		_, err := g.Agent.ResizeVolume(t.Context(), &agentpb.ResizeVolumeRequest{VolumeGuestPath: place, Size: 160 * mebibyte})
		return err
	}
	if err := resize(); status.Code(err) != codes.InvalidArgument {
		t.Errorf("larger than the disk: %v", err)
	}
	err := g.Execute(t.Context(), "block_resize", map[string]any{"node-name": "volume-image", "size": 160 * mebibyte}, nil)
	if err != nil {
		t.Fatal(err)
	}
	g.eventually(t, "the volume is resized", func() bool { return resize() == nil })
	if after := total(); after < before+85*mebibyte {
		t.Errorf("%d bytes before, %d after", before, after)
	}
	call(t, g.Agent.CloseStdin, &agentpb.CloseStdinRequest{ContainerId: "user", ExecId: "user"})
	if got := g.output(t, "user"); got != "kept\n" {
		t.Errorf("the file reads %q", got)
	}
}

func plugMemory(t *testing.T, g *Guest) {
	d := call(t, g.Agent.GetGuestDetails, &agentpb.GuestDetailsRequest{MemBlockSize: true, MemHotplugProbe: true})
	if d.MemBlockSizeBytes != 128*mebibyte || d.SupportMemHotplugProbe {
		t.Errorf("details %v", d)
	}
	total := func(id string) int {
		n, err := strconv.Atoi(strings.Fields(g.in(t, id, "head -n 1 /proc/meminfo"))[1])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	// The kernel leaves new memory alone, so the agent takes it when it comes.
	before, tries := total("memory-before"), 0
	if err := g.PlugMemory(t.Context(), "memory", 128); err != nil {
		t.Fatal(err)
	}
	g.eventually(t, "the memory is used", func() bool {
		tries++
		return total(fmt.Sprintf("memory-%d", tries)) >= before+120*1024
	})
	for range 2 { // what the shim asks after each change, with nothing left to do
		call(t, g.Agent.OnlineCPUMem, &agentpb.OnlineCPUMemRequest{Wait: true})
	}
	// The kernel of this image is told by ACPI.
	_, err := g.Agent.MemHotplugByProbe(t.Context(), &agentpb.MemHotplugByProbeRequest{MemHotplugProbeAddr: []uint64{0x100000000}})
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("probe: %v", err)
	}
}

// onlineProcessors brings the second processor on line while a container waits
// that may use both.
func onlineProcessors(t *testing.T, g *Guest) {
	spec := containerSpec("wide", "sh", "-c", "cat; cat /sys/fs/cgroup/cpuset.cpus.effective /proc/self/status")
	spec.Linux.Resources.CPU.Cpus = "0-1"
	spec.Mounts = append(spec.Mounts, &agentpb.Mount{Destination: "/sys/fs/cgroup", Source: "cgroup", Type: "cgroup", Options: []string{"ro"}})
	g.start(t, "wide", spec)
	for range 2 { // repeatable
		call(t, g.Agent.OnlineCPUMem, &agentpb.OnlineCPUMemRequest{NbCpus: 2, CpuOnly: true})
	}
	if got := g.in(t, "see-cpus", "cat /sys/devices/system/cpu/online"); got != "0-1" {
		t.Errorf("on line are %s", got)
	}
	call(t, g.Agent.CloseStdin, &agentpb.CloseStdinRequest{ContainerId: "wide", ExecId: "wide"})
	got := g.output(t, "wide")
	if !strings.HasPrefix(got, "0-1\n") || !strings.Contains(got, "Cpus_allowed_list:\t0-1\n") {
		t.Errorf("the container sees\n%s", got)
	}
	_, err := g.Agent.OnlineCPUMem(t.Context(), &agentpb.OnlineCPUMemRequest{NbCpus: 1 << 20})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("too many: %v", err)
	}
}

func restoreIPTables(t *testing.T, g *Guest) {
	const rule = "-A OUTPUT -p tcp -m tcp --dport 8080 -j REDIRECT --to-ports 15001"
	for _, v6 := range []bool{false, true} {
		call(t, g.Agent.SetIPTables, &agentpb.SetIPTablesRequest{IsIpv6: v6, Data: []byte("*nat\n:OUTPUT ACCEPT [0:0]\n" + rule + "\nCOMMIT\n")})
		got := call(t, g.Agent.GetIPTables, &agentpb.GetIPTablesRequest{IsIpv6: v6})
		if !strings.Contains(string(got.Data), rule+"\n") {
			t.Errorf("v6 %v: rules are\n%s", v6, got.Data)
		}
		_, err := g.Agent.SetIPTables(t.Context(), &agentpb.SetIPTablesRequest{IsIpv6: v6, Data: []byte("*nat\n-A NOWHERE -j ACCEPT\nCOMMIT\n")})
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("v6 %v: bad rules: %v", v6, err)
		}
		again := call(t, g.Agent.GetIPTables, &agentpb.GetIPTablesRequest{IsIpv6: v6})
		if !strings.Contains(string(again.Data), rule+"\n") {
			t.Errorf("v6 %v: after bad rules they are\n%s", v6, again.Data)
		}
	}
}

func reseed(t *testing.T, g *Guest) {
	call(t, g.Agent.ReseedRandomDev, &agentpb.ReseedRandomDevRequest{Data: []byte("known to the host")})
}

// tuneMemAgent switches both parts on and waits for their work.
func tuneMemAgent(t *testing.T, g *Guest) {
	off, second, never, zero := false, uint64(1), uint32(100), uint64(0)
	call(t, g.Agent.MemAgentMemcgSet, &agentpb.MemAgentMemcgConfig{Disabled: &off, PeriodSecs: &second,
		PeriodPsiPercentLimit: &never, EvictionPsiPercentLimit: &never, EvictionRunAgingCountMin: &second})
	call(t, g.Agent.MemAgentCompactSet, &agentpb.MemAgentCompactConfig{Disabled: &off, PeriodSecs: &second,
		PeriodPsiPercentLimit: &never, CompactPsiPercentLimit: &never, CompactForceTimes: &zero})
	for _, what := range []string{"memcg_rounds", "aged", "evicted", "compactions"} {
		g.eventually(t, what, func() bool {
			page := call(t, g.Agent.GetMetrics, &agentpb.GetMetricsRequest{}).Metrics
			_, rest, ok := strings.Cut(page, `coffer_memagent_total{what="`+what+`"} `)
			count, _, _ := strings.Cut(rest, "\n")
			return ok && count != "0"
		})
	}
	order := uint32(99)
	_, err := g.Agent.MemAgentCompactSet(t.Context(), &agentpb.MemAgentCompactConfig{CompactOrder: &order})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("bad order: %v", err)
	}
	on := true
	call(t, g.Agent.MemAgentMemcgSet, &agentpb.MemAgentMemcgConfig{Disabled: &on})
	call(t, g.Agent.MemAgentCompactSet, &agentpb.MemAgentCompactConfig{Disabled: &on})
}

func setClock(t *testing.T, g *Guest) {
	to := time.Now().Add(400 * 24 * time.Hour)
	call(t, g.Agent.SetGuestDateTime, &agentpb.SetGuestDateTimeRequest{Sec: to.Unix(), Usec: 5})
	seconds, err := strconv.ParseInt(g.in(t, "see-clock", "busybox date +%s"), 10, 64)
	if err != nil || seconds < to.Unix() || seconds > to.Unix()+600 {
		t.Errorf("the guest's clock says %d, want %d or a little more, %v", seconds, to.Unix(), err)
	}
	_, err = g.Agent.SetGuestDateTime(t.Context(), &agentpb.SetGuestDateTimeRequest{Sec: 1})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("the epoch: %v", err)
	}
}

func blank(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(path)
	if err == nil {
		err = errors.Join(f.Truncate(size), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// eventually asks until it is so: what is plugged in shows some time later.
func (g *Guest) eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("never: %s", what)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
