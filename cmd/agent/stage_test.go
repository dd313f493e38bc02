package main

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/agent/container"
	"github.com/coffer-cc/coffer/agent/guest"
	"github.com/coffer-cc/coffer/agent/network"
	"github.com/coffer-cc/coffer/agent/ocispec"
	"github.com/coffer-cc/coffer/agent/policy"
	"github.com/coffer-cc/coffer/agent/sandbox"
	"github.com/coffer-cc/coffer/mount/storage"
	"github.com/coffer-cc/coffer/protos/agentpb"
	"github.com/coffer-cc/coffer/rpc"
	"github.com/coffer-cc/coffer/rpc/rpctest"
)

// notHere are storages that need hardware of a virtual machine. They are taken
// out of a life before it is replayed, and the test provides what they would
// have brought.
var notHere = map[string]string{
	"virtio-fs": "needs a virtual machine",
	"blk":       "needs a virtual machine",
}

// stage prepares the machine for a life: root file systems, what the host would
// have shared, network links.
func stage(t *testing.T, l *rpctest.Life) {
	t.Helper()
	sent := map[string]bool{}
	for _, c := range l.Calls {
		switch r := c.Request.(type) {
		case *agentpb.CopyFileRequest:
			sent[r.GetPath()] = true
		case *agentpb.CreateSandboxRequest:
			r.Storages = slices.DeleteFunc(r.GetStorages(), absentStorage)
		case *agentpb.CreateContainerRequest:
			r.Storages = slices.DeleteFunc(r.GetStorages(), absentStorage)
			r.Devices = nil // block devices, all of them
			if process := r.GetOCI().GetProcess(); !mayProtect(t) && process.GetOOMScoreAdj() < 0 {
				process.OOMScoreAdj = 0
			}
			stageContainer(t, r, sent)
		case *agentpb.UpdateInterfaceRequest:
			stageLink(t, r.GetInterface().GetHwAddr())
		}
	}
}

// mayProtect tells whether this machine lets a process have a negative score for
// memory kills.
func mayProtect(t *testing.T) bool {
	t.Helper()
	var head = unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&head, &data[0]); err != nil {
		t.Fatal(err)
	}
	return data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}

func absentStorage(s *agentpb.Storage) bool { return notHere[s.GetDriver()] != "" }

func stageContainer(t *testing.T, r *agentpb.CreateContainerRequest, sent map[string]bool) {
	t.Helper()
	if root := r.GetOCI().GetRoot().GetPath(); strings.HasPrefix(root, guest.SharedDir) {
		makeRoot(t, root)
	}
	for _, s := range r.GetStorages() {
		if s.GetDriver() == "watchable-bind" {
			stageShared(t, s.GetSource())
		}
	}
	for _, m := range r.GetOCI().GetMounts() {
		shared := strings.HasPrefix(m.GetSource(), guest.SharedDir)
		if strings.HasPrefix(m.GetSource(), ocispec.WatchableDir+"/") {
			continue // a storage brings it
		}
		if m.GetType() != "bind" || sent[m.GetSource()] || !shared && !strings.Contains(m.GetSource(), "/sandbox/storage/") {
			continue
		}
		stageShared(t, m.GetSource())
	}
}

// stageShared plays the host's side of a shared directory.
func stageShared(t *testing.T, path string) {
	t.Helper()
	files := map[string]string{
		"hosts": "127.0.0.1 localhost\n10.88.0.9 pod1\n", "hostname": "pod1\n", "termination-log": "",
		"resolv.conf": "search default.svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n",
	}
	var err error
	for suffix, text := range files {
		if strings.HasSuffix(path, "-"+suffix) {
			if err = os.MkdirAll(filepath.Dir(path), 0o755); err == nil {
				err = os.WriteFile(path, []byte(text), 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(path, "-config") {
		if err := os.WriteFile(filepath.Join(path, "key1"), []byte("value1\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// stageLink makes a link with the address that the host will name. What is at
// its other end plays the bridge of the host.
func stageLink(t *testing.T, mac string) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "plugged0"
	var err error
	if attrs.HardwareAddr, err = net.ParseMAC(mac); err != nil {
		t.Fatal(err)
	}
	veth := netlink.NewVeth(attrs)
	veth.PeerName = "bridge0"
	if err := netlink.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
	peer, err := netlink.LinkByName(veth.PeerName)
	if err == nil {
		err = netlink.LinkSetUp(peer)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netlink.LinkDel(peer); err != nil {
			t.Error(err)
		}
	})
}

// images provides one root file system for every reference.
type images struct {
	dir string

	pulled   []string
	released []string
}

func (i *images) Pull(_ context.Context, ref, owner string) (storage.Image, error) {
	i.pulled = append(i.pulled, owner)
	return storage.Image{Rootfs: i.dir, Reference: ref, ManifestDigest: "sha256:0"}, nil
}

func (i *images) Release(_ context.Context, owner string) error {
	i.released = append(i.released, owner)
	return nil
}

// pullingAgent is an agent whose images come from i and not from a registry.
// Only the sandbox differs from realAgent.
func pullingAgent(i *images) builder {
	return func(t *testing.T, p *process, stack *network.Stack, engine *policy.Rego) parts {
		t.Helper()
		i.dir = filepath.Join(t.TempDir(), "image")
		makeRoot(t, i.dir)
		deps := storage.Deps{PauseBundle: makePause(t), Images: i}
		box := sandbox.New(sandbox.Deps{
			Containers: container.NewLibcontainer(container.LibcontainerOptions{StateRoot: stateRoot}),
			Storage:    storage.NewManager(deps, storage.Handlers(deps)),
			SetDNS: func(ctx context.Context, lines []string) error {
				return network.SetDNS(ctx, network.DefaultDNSFiles(), lines)
			},
		})
		destroyed := make(chan struct{})
		machine := guest.New()
		server, err := rpc.New(rpc.Deps{
			Policy: engine, Sandbox: box, Network: stack, Machine: machine,
			Metrics: &guest.Metrics{Machine: machine}, Copier: &guest.Copier{Root: guest.SharedDir},
			Destroyed: func() { close(destroyed) },
		})
		if err != nil {
			t.Fatal(err)
		}
		server.Open()
		return parts{server, destroyed, server.Stop}
	}
}

// makePause makes a bundle as a guest image has one.
func makePause(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	makeRoot(t, filepath.Join(dir, "rootfs"))
	text, err := json.Marshal(specs.Spec{Process: &specs.Process{Args: []string{"/bin/busybox", "sleep", "100000"}, Cwd: "/"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}
