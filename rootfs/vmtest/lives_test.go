package vmtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/ttrpc"

	"github.com/coffer-cc/coffer/protos/agentpb"
	"github.com/coffer-cc/coffer/rootfs/vm"
	"github.com/coffer-cc/coffer/rpc/rpctest"
)

// recordedSlot is where the recordings' block device sits on the PCI bus.
const recordedSlot = 0x0b

// TestLives replays the pods of a hypervisor with devices in machines that have
// them: a real virtio-fs share, a disk and a network card.
func TestLives(t *testing.T) {
	ownMachine(t)
	played := 0
	for _, l := range rpctest.Lives(t) {
		if !strings.HasPrefix(l.File, "clh-virtiofs") && !strings.HasPrefix(l.File, "clh-mgmt") {
			continue // without a share the root file systems come from nowhere
		}
		played++
		t.Run(l.Name(), func(t *testing.T) {
			share := t.TempDir()
			mac := stageLife(t, l, share)
			g := Boot(t, vm.Config{
				Words:   []string{"cgroup_no_v1=all"},
				CPUs:    2, // what the recorded host has plugged in
				Shares:  []vm.Share{{Tag: shareTag, Path: share}},
				Disks:   []vm.Disk{{Path: makeDisk(t, filepath.Join(t.TempDir(), "disk.img")), Slot: recordedSlot}},
				Network: &vm.Network{MAC: mac, Restrict: true},
			})
			conn, err := g.dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			client := ttrpc.NewClient(conn)
			play := l.Start(client)
			play.Wait(t, bootTimeout)
			client.Close() // as the shim does
			play.Judge(t)
			if play.Destroyed() {
				waitOff(t, g.VM)
			}
		})
	}
	if played != 4 {
		t.Errorf("%d lives were played", played)
	}
}

// stageLife fills the share with what the host of the recording had in it, and
// returns the address of the pod's network card.
func stageLife(t *testing.T, l *rpctest.Life, share string) (mac string) {
	t.Helper()
	for _, c := range l.Calls {
		switch r := c.Request.(type) {
		case *agentpb.UpdateInterfaceRequest:
			mac = r.GetInterface().GetHwAddr()
		case *agentpb.CreateContainerRequest:
			root, shared := strings.CutPrefix(r.GetOCI().GetRoot().GetPath(), sharedDir)
			if !shared {
				t.Fatalf("root %s is not on the share", r.GetOCI().GetRoot().GetPath())
			}
			makeRoot(t, filepath.Join(share, root))
			for _, s := range r.GetStorages() {
				if path, shared := strings.CutPrefix(s.GetSource(), sharedDir); shared {
					stageMount(t, filepath.Join(share, path)) // watched
				}
			}
			for _, m := range r.GetOCI().GetMounts() {
				path, shared := strings.CutPrefix(m.GetSource(), sharedDir)
				if shared && !strings.HasPrefix(path, "watchable/") {
					stageMount(t, filepath.Join(share, path))
				}
			}
		}
	}
	return mac
}

// stageMount makes the file or directory that a container mounts.
func stageMount(t *testing.T, path string) {
	t.Helper()
	kind := path[strings.LastIndexByte(path, '-')+1:]
	if kind == "config" || kind == "scratch" {
		if err := os.MkdirAll(path, 0o777); err != nil {
			t.Fatal(err)
		}
		path = filepath.Join(path, "key1")
	}
	text := map[string]string{
		"config": "value1\n", "hosts": "127.0.0.1 localhost\n10.88.0.9 pod1\n", "hostname": "pod1\n",
		"resolv.conf": "search default.svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n",
	}[kind]
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
