package vmtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coffer-cc/coffer/protos/agentpb"
	"github.com/coffer-cc/coffer/rootfs/image"
	"github.com/coffer-cc/coffer/rootfs/vm"
)

// otherAgent stands where a Kata image has its agent.
const otherAgent = "#!/bin/sh\necho this is the other agent\n"

// kata is what a Kata image is made of here, and a place for more of them.
type kata struct {
	dir     string
	root    string // `make install` of this tree
	modules string // the root of our own image, for the kernel's modules
	source  string // of the tree
	kernel  string
}

func newKata(t *testing.T) kata {
	t.Helper()
	b, err := prepare()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	k := kata{dir: dir, root: filepath.Join(dir, "install"), modules: filepath.Join(dir, "own"), source: b.store.Root}
	run(t, "", "make", "--silent", "--directory="+k.source, "install", "BIN="+b.dir, "DESTDIR="+k.root)
	own := Variant{Disk: true}.Build(t)
	k.kernel = own.Kernel
	text, err := os.ReadFile(own.Root)
	if err != nil {
		t.Fatal(err)
	}
	partition := filepath.Join(dir, "partition")
	if err := os.WriteFile(partition, text[1<<20:], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(k.modules, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "rdump / "+k.modules+"\n", "debugfs", "-f", "-", partition)
	return k
}

// put writes files below a directory; a name with a star is a program.
func put(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		mode := os.FileMode(0o644)
		if rest, program := strings.CutSuffix(name, "*"); program {
			name, mode = rest, 0o755
		}
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
}

// disk makes an image as Kata's build does: one partition with ext4 in it.
func (k kata) disk(t *testing.T, root string) string {
	t.Helper()
	out := filepath.Join(k.dir, "kata-containers.img")
	system := filepath.Join(k.dir, "system")
	run(t, "", "mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-d", root, system, "320M")
	text, err := os.ReadFile(system)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(out, append(image.PartitionTable(len(text)), text...), 0o600); err != nil {
		t.Fatal(err)
	}
	return out
}

// install puts this tree's agent into an image as docs/install-kata.md says.
func (k kata) install(t *testing.T, image string) string {
	t.Helper()
	out := run(t, "", filepath.Join(k.source, "rootfs", "into-kata"), k.root, image)
	if !strings.Contains(out, "coffer-agent") {
		t.Errorf("into-kata says %s", out)
	}
	return out
}

// TestSystemd puts the agent into an image that boots with systemd, and has it
// serve there as Kata's service: the shim's kernel parameters, both kinds of
// cgroups, and the machine off in the end.
func TestSystemd(t *testing.T) {
	ownMachine(t)
	if chosenTransport(t) == vm.Loopback {
		t.Skip("the host has no vsock to the guest")
	}
	k := newKata(t)
	root := filepath.Join(k.dir, "kata")
	debianRoot(t, root, "systemd", "busybox-static")
	put(t, root, map[string]string{
		"usr/bin/kata-agent*":              otherAgent,
		"etc/kata-opa/default-policy.rego": readFile(t, filepath.Join(k.source, "rootfs/vmtest/testdata/allow-all.rego")),
		"etc/coffer/agent.toml":            readFile(t, filepath.Join(k.source, "rootfs/vmtest/testdata/agent.toml")),
	})
	run(t, "", "cp", "-a", filepath.Join(k.modules, "lib/modules"), filepath.Join(root, "usr/lib/"))
	put(t, root, map[string]string{"usr/lib/systemd/system/kata-agent.service.d/modules.conf": k.loadModules(t)})
	disk := k.disk(t, root)
	if out := k.install(t, disk); !strings.Contains(out, "policy of the image stays") {
		t.Errorf("into-kata says %s", out)
	}
	shared := sharedConfig(t)
	g := Boot(t, vm.Config{Kernel: k.kernel, Root: disk, Shares: shared.Shares, Memory: 768, Words: []string{
		"init=/usr/lib/systemd/systemd", "systemd.unit=kata-containers.target", "systemd.mask=systemd-networkd.service",
		"systemd.mask=systemd-networkd.socket",
	}})
	details := call(t, g.Agent.GetGuestDetails, &agentpb.GuestDetailsRequest{})
	if details.GetAgentDetails().GetInitDaemon() {
		t.Error("the agent says that it is the init")
	}
	g.createSandbox(t, "pod")
	for id, c := range map[string]struct{ path, dir string }{
		"plain": {"/vmtest/plain", "/vmtest/plain"},
		"slice": {"system.slice:vmtest:slice", "/system.slice/vmtest-slice.scope"}, // by systemd's own doing
	} {
		spec := containerSpec(id, "busybox", "ls", "-d", "/tmp"+c.dir)
		spec.Linux.CgroupsPath = c.path
		spec.Mounts = append(spec.Mounts, &agentpb.Mount{Destination: "/tmp", Source: "/sys/fs/cgroup", Type: "bind", Options: []string{"rbind", "ro"}})
		call(t, g.Agent.CreateContainer, &agentpb.CreateContainerRequest{ContainerId: id, ExecId: id, OCI: spec})
		call(t, g.Agent.StartContainer, &agentpb.StartContainerRequest{ContainerId: id})
		if got := g.output(t, id); got != "/tmp"+c.dir+"\n" {
			t.Errorf("%s: cgroup %q", id, got)
		}
		if code := g.wait(t, id); code != 0 {
			t.Errorf("%s ended with %d", id, code)
		}
	}
	for _, id := range []string{"plain", "slice"} {
		call(t, g.Agent.RemoveContainer, &agentpb.RemoveContainerRequest{ContainerId: id})
	}
	call(t, g.Agent.DestroySandbox, &agentpb.DestroySandboxRequest{})
	waitOff(t, g.VM)
}

// TestKataInitrd puts the agent into an initrd whose agent is its init.
func TestKataInitrd(t *testing.T) {
	ownMachine(t)
	k := newKata(t)
	k.agentAsInit(t)
	if err := os.Symlink("sbin/init", filepath.Join(k.modules, "init")); err != nil {
		t.Fatal(err)
	}
	initrd := filepath.Join(k.dir, "kata-containers-initrd.img")
	run(t, "", "sh", "-c", "cd "+k.modules+" && find . | cpio --quiet -o -H newc -R 0:0 | gzip -1 >"+initrd)
	if out := k.install(t, initrd); !strings.Contains(out, "policy of the image stays") {
		t.Errorf("into-kata says %s", out)
	}
	k.serves(t, vm.Config{Initrd: initrd})
}

// TestKataAgentInit puts the agent into a disk image whose agent is its init.
func TestKataAgentInit(t *testing.T) {
	ownMachine(t)
	k := newKata(t)
	k.agentAsInit(t)
	disk := k.disk(t, k.modules)
	if out := k.install(t, disk); !strings.Contains(out, "becomes its init") {
		t.Errorf("into-kata says %s", out)
	}
	k.serves(t, vm.Config{Root: disk})
}

// agentAsInit makes our own root one of Kata's with another agent.
func (k kata) agentAsInit(t *testing.T) {
	t.Helper()
	if err := os.Remove(filepath.Join(k.modules, "init")); err != nil {
		t.Fatal(err)
	}
	put(t, k.modules, map[string]string{"sbin/init*": otherAgent})
}

// serves boots and runs a container.
func (k kata) serves(t *testing.T, c vm.Config) {
	t.Helper()
	if chosenTransport(t) == vm.Loopback {
		t.Skip("the host has no vsock to the guest")
	}
	c.Kernel, c.Shares = k.kernel, sharedConfig(t).Shares
	g := Boot(t, c)
	if details := call(t, g.Agent.GetGuestDetails, &agentpb.GuestDetailsRequest{}); !details.GetAgentDetails().GetInitDaemon() {
		t.Error("the agent says that it is not the init")
	}
	g.createSandbox(t, "pod")
	if got := g.run(t, "c1", "cat", "/proc/1/comm"); got != "cat\n" {
		t.Errorf("got %q", got)
	}
}

// TestIntoKataRefuses sees images unchanged that cannot be served this way.
func TestIntoKataRefuses(t *testing.T) {
	ownMachine(t)
	b, err := prepare()
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	put(t, root, map[string]string{"usr/bin/kata-agent*": otherAgent})
	verity := image.PartitionTable(1 << 20)
	copy(verity[462:478], verity[446:462])
	verity[462+9] = 0x10 // begins elsewhere
	for _, tc := range []struct {
		name, root string
		image      []byte
		want       string
	}{
		{"measured image", root, append(verity, make([]byte, 4<<20)...), "dm-verity"},
		{"no image", root, []byte("text"), "neither an initrd nor a disk"},
		{"nothing to install", t.TempDir(), image.PartitionTable(0), "make install"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "image")
			if err := os.WriteFile(file, tc.image, 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(filepath.Join(b.store.Root, "rootfs", "into-kata"), tc.root, file).CombinedOutput()
			if err == nil || !strings.Contains(string(out), tc.want) {
				t.Errorf("got %s, %v, want %q", out, err, tc.want)
			}
			if now := readFile(t, file); now != string(tc.image) {
				t.Error("the image was changed")
			}
		})
	}
}

// loadModules makes the service load what our own image loads at boot; Kata's
// kernels have it built in.
func (k kata) loadModules(t *testing.T) string {
	t.Helper()
	text := "[Service]\n"
	for path := range strings.Lines(readFile(t, filepath.Join(k.modules, "etc/coffer/modules"))) {
		text += fmt.Sprintf("ExecStartPre=-/bin/busybox insmod %s\n", strings.TrimSpace(path))
	}
	return text
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
