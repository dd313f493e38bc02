package vmtest

import (
	"context"
	"flag"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/coffer-cc/coffer/rootfs/vm"
)

// cardMAC is the address of the shared machine's network card.
const cardMAC = "52:54:00:c0:ff:ee"

// transportFlag forces a transport; the default takes the best there is.
var transportFlag = flag.String("transport", "", "vhost-vsock, vhost-device-vsock or loopback")

// shared is the machine that most tests use: one pod with a share, a disk and
// a network card. TestMain stops it.
var shared struct {
	once  sync.Once
	guest *Guest
}

// Shared returns a guest in which a sandbox named "pod" exists. Tests may run
// containers in it and must leave the pod as it was.
func Shared(t testing.TB) *Guest {
	t.Helper()
	if !inside() && chosenTransport(t) == vm.Loopback {
		t.Skip("the host has no vsock to the guest: TestInside runs this test in the guest")
	}
	shared.once.Do(func() { shared.guest = bootShared(t) })
	if shared.guest == nil {
		t.Fatal("the shared guest did not boot, see the first test that failed")
	}
	if machine := shared.guest.VM; machine != nil {
		t.Cleanup(func() { showConsole(t, machine) })
	}
	return shared.guest
}

func bootShared(t testing.TB) *Guest {
	var g *Guest
	if inside() {
		g = newGuest(dialInside)
	} else {
		machine := Start(t, sharedConfig(t))
		stopShared = machine.Stop
		t.Cleanup(func() { showConsole(t, machine) })
		g = newGuest(func(ctx context.Context) (net.Conn, error) { return machine.Dial(ctx, agentPort) })
		g.VM = machine
		t.Logf("accelerator %s, transport %s", machine.Accelerator(), machine.Transport())
	}
	g.waitServing(t)
	g.createSandbox(t, "pod")
	return g
}

// stopShared ends the shared machine.
var stopShared = func() error { return nil }

// diskSlot is where the shared machine's disk sits on the PCI bus.
const diskSlot = 9

func sharedConfig(t testing.TB) vm.Config {
	b, err := prepare()
	if err != nil {
		t.Fatal(err)
	}
	share := filepath.Join(b.dir, "share")
	makeRoot(t, filepath.Join(share, "busybox", "rootfs"))
	return vm.Config{
		Words:   []string{"cgroup_no_v1=all"},
		Shares:  []vm.Share{{Tag: shareTag, Path: share}},
		Disks:   []vm.Disk{{Path: makeDisk(t, filepath.Join(b.dir, "disk.img")), Slot: diskSlot}},
		Network: &vm.Network{MAC: cardMAC, Restrict: true},
	}
}

func chosenTransport(t testing.TB) vm.Transport {
	b, err := prepare()
	if err != nil {
		t.Fatal(err)
	}
	return vm.Choose(vm.Transport(*transportFlag), b.vsockDevice)
}

// makeRoot fills a container root with busybox and its names.
func makeRoot(t testing.TB, dir string) {
	t.Helper()
	for _, d := range []string{"bin", "proc", "dev", "sys", "tmp", "data", "etc", "mnt", "scratch"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin", "busybox"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "cat", "true", "sleep", "sha256sum", "dd", "ping", "id", "tail", "head", "cut", "wget", "ps", "tty", "echo", "hostname", "grep", "yes", "sync"} {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", name)); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "pause"), []byte("#!/bin/sh\nexec sleep 100000\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}

// makeDisk makes an ext4 image that holds one file.
func makeDisk(t testing.TB, path string) string {
	t.Helper()
	content := t.TempDir()
	if err := os.WriteFile(filepath.Join(content, "greeting"), []byte("hello from a disk\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-d", content, path, "16M").CombinedOutput(); err != nil {
		t.Fatalf("make disk: %v: %s", err, out)
	}
	return path
}
