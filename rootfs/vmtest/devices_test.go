package vmtest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/coffer-cc/coffer/protos/agentpb"
	"github.com/coffer-cc/coffer/protos/typespb"
)

func TestBlockStorage(t *testing.T) {
	g := Shared(t)
	const point = "/run/kata-containers/sandbox/storage/disk"
	spec := containerSpec("disk", "cat", "/data/greeting")
	spec.Mounts = append(spec.Mounts, &agentpb.Mount{Destination: "/data", Source: point, Type: "bind", Options: []string{"rbind", "ro"}})
	g.start(t, "disk", spec, &agentpb.Storage{
		Driver: "blk", Source: fmt.Sprintf("%02x", diskSlot), Fstype: "ext4", Options: []string{"ro"}, MountPoint: point,
	})
	if got, want := g.output(t, "disk"), "hello from a disk\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if code := g.wait(t, "disk"); code != 0 {
		t.Errorf("ended with %d", code)
	}
}

// TestNetwork sets up the card by the protocol's calls and reaches QEMU's
// gateway, which answers pings by itself.
func TestNetwork(t *testing.T) {
	g := Shared(t)
	g.setUpCard(t)
	links := call(t, g.Agent.ListInterfaces, &agentpb.ListInterfacesRequest{})
	if !slices.ContainsFunc(links.Interfaces, func(i *typespb.Interface) bool {
		return i.Name == "eth0" && strings.EqualFold(i.HwAddr, cardMAC) && len(i.IPAddresses) > 0
	}) {
		t.Errorf("interfaces are %v", links.Interfaces)
	}
	g.run(t, "ping", "ping", "-c", "1", "-W", "5", "10.0.2.2")
}
