package vmtest

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coffer-cc/coffer/protos/agentpb"
	"github.com/coffer-cc/coffer/rootfs/vm"
)

// pmemSize is the least that can be plugged in as memory.
const pmemSize = 128 * mebibyte

// storageMachine has a SCSI disk and an NVDIMM from the start, room for more,
// and what makes file systems.
func storageMachine(t *testing.T) *Guest {
	t.Helper()
	c := sharedConfig(t)
	own := Variant{Add: hostProgram(t, "mkfs.ext4")}.Build(t)
	c.Kernel, c.Initrd = own.Kernel, own.Initrd
	c.Room = vm.Room{Memory: 512, SCSI: true, Bridge: true}
	scsi, pmem := greeting(t, "cold scsi", 16), persistent(t, "cold nvdimm")
	c.Arguments = []string{
		"-drive", "if=none,id=cold,format=raw,file=" + scsi, "-device", "scsi-hd,bus=scsi0.0,drive=cold,channel=0,scsi-id=0,lun=3",
		"-object", fmt.Sprintf("memory-backend-file,id=coldmem,share=on,size=%d,mem-path=%s", pmemSize, pmem), "-device", "nvdimm,memdev=coldmem",
	}
	g := Boot(t, c)
	g.createSandbox(t, "pod")
	return g
}

// greeting is an image of an ext4 that says who it is.
func greeting(t *testing.T, who string, mib int) string {
	t.Helper()
	dir, image := t.TempDir(), filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(filepath.Join(dir, "greeting"), []byte("hello from "+who), 0o644); err != nil {
		t.Fatal(err)
	}
	// Blocks as large as a page, or the file system cannot map persistent memory.
	if out, err := exec.Command("mkfs.ext4", "-q", "-b", "4096", "-d", dir, image, fmt.Sprintf("%dM", mib)).CombinedOutput(); err != nil {
		t.Fatalf("make disk: %v: %s", err, out)
	}
	return image
}

// daxOffset is where the file system begins on persistent memory that carries
// the header by which Linux maps it into its page tables.
const daxOffset = 2 * mebibyte

// persistent is an image for an NVDIMM: the header that ndctl writes for
// namespaces of mode fsdax (struct nd_pfn_sb in the kernel's
// drivers/nvdimm/pfn.h), and a file system.
func persistent(t *testing.T, who string) string {
	t.Helper()
	content, err := os.ReadFile(greeting(t, who, 16))
	if err != nil {
		t.Fatal(err)
	}
	header, le := make([]byte, 4096), binary.LittleEndian
	copy(header, "NVDIMM_PFN_INFO")
	le.PutUint16(header[52:], 1) // version 1.2
	le.PutUint16(header[54:], 2)
	le.PutUint64(header[56:], daxOffset)
	le.PutUint64(header[64:], (pmemSize-daxOffset)/4096)
	le.PutUint32(header[72:], 1)         // the page tables are in ordinary memory
	le.PutUint32(header[84:], daxOffset) // alignment
	var low, high uint64                 // Fletcher's sum over words
	for i := 0; i < len(header); i += 4 {
		low = (low + uint64(le.Uint32(header[i:]))) & 0xffffffff
		high = (high + low) & 0xffffffff
	}
	le.PutUint64(header[4088:], high<<32|low)
	f, err := os.Create(filepath.Join(t.TempDir(), "pmem"))
	if err != nil {
		t.Fatal(err)
	}
	_, errHeader := f.WriteAt(header, 4096)
	_, errContent := f.WriteAt(content, daxOffset)
	if err := errors.Join(errHeader, errContent, f.Truncate(pmemSize), f.Close()); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// volume is a storage at a place of its own, and the spec of a container that
// has it at /data and runs a shell script.
func volume(id string, s *agentpb.Storage, script string) (*agentpb.Spec, *agentpb.Storage) {
	s.MountPoint = "/run/kata-containers/sandbox/storage/" + id
	spec := containerSpec(id, "sh", "-c", script)
	spec.Mounts = append(spec.Mounts, &agentpb.Mount{Destination: "/data", Source: s.MountPoint, Type: "bind", Options: []string{"rbind", "rw"}})
	return spec, s
}

// runOn runs a script with a storage, and returns its output and exit code.
func (g *Guest) runOn(t testing.TB, id string, s *agentpb.Storage, script string) (string, int32) {
	t.Helper()
	spec, s := volume(id, s, script)
	g.start(t, id, spec, s)
	return g.output(t, id), g.wait(t, id)
}

// refuses asserts that a container with the storages is not created, and why.
func (g *Guest) refuses(t testing.TB, id, why string, spec *agentpb.Spec, storages ...*agentpb.Storage) {
	t.Helper()
	ctx, cancel := callContext(t)
	defer cancel()
	_, err := g.Agent.CreateContainer(ctx, &agentpb.CreateContainerRequest{ContainerId: id, ExecId: id, OCI: spec, Storages: storages})
	if err == nil || !strings.Contains(err.Error(), why) {
		t.Errorf("got %v, want %q", err, why)
	}
}

// TestDisks attaches each kind of disk, from the start and plugged in while the
// call waits, in one machine.
func TestDisks(t *testing.T) {
	ownMachine(t)
	g := storageMachine(t)
	plug := func(do func() error) func(*testing.T) {
		return func(t *testing.T) {
			if err := do(); err != nil {
				t.Error(err)
			}
		}
	}
	for _, tc := range []struct {
		name    string
		storage *agentpb.Storage
		plug    func(*testing.T) // nil for what is there
	}{
		{"cold scsi", &agentpb.Storage{Driver: "scsi", Source: "0:3", Fstype: "ext4"}, nil},
		{"hot scsi", &agentpb.Storage{Driver: "scsi", Source: "1:30", Fstype: "ext4"}, plug(func() error {
			return g.PlugSCSI(t.Context(), "scsi1", vm.Disk{Path: greeting(t, "hot scsi", 16)}, 1, 30)
		})},
		{"cold nvdimm", &agentpb.Storage{Driver: "nvdimm", Source: "/dev/pmem0", Fstype: "ext4", Options: []string{"dax", "ro"}}, nil},
		{"hot nvdimm", &agentpb.Storage{Driver: "nvdimm", Source: "/dev/pmem1", Fstype: "ext4", Options: []string{"dax"}}, plug(func() error {
			return g.PlugNVDIMM(t.Context(), "pmem1", persistent(t, "hot nvdimm"), pmemSize)
		})},
		{"hot blk", &agentpb.Storage{Driver: "blk", Source: "02/03", Fstype: "ext4"}, plug(func() error {
			return g.PlugDisk(t.Context(), "blk3", vm.Disk{Path: greeting(t, "hot blk", 16), Slot: 3})
		})},
	} {
		t.Run(tc.name, func(t *testing.T) {
			id := strings.ReplaceAll(tc.name, " ", "-")
			plugged := make(chan struct{})
			go func() {
				defer close(plugged)
				if tc.plug != nil {
					tc.plug(t)
				}
			}()
			out, code := g.runOn(t, id, tc.storage, "cat /data/greeting; grep ' /data ' /proc/mounts")
			<-plugged
			if !strings.HasPrefix(out, "hello from "+tc.name) || code != 0 {
				t.Errorf("ended with %d: %s", code, out)
			}
			if tc.storage.Driver == "nvdimm" && !strings.Contains(out, "dax=always") {
				t.Errorf("mounted without dax: %s", out)
			}
		})
	}
	t.Run("device", func(t *testing.T) { testDiskAsDevice(t, g) })
	t.Run("absent", func(t *testing.T) {
		spec, s := volume("absent", &agentpb.Storage{Driver: "scsi", Source: "1:3", Fstype: "ext4"}, "true")
		ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
		defer cancel()
		_, err := g.Agent.CreateContainer(ctx, &agentpb.CreateContainerRequest{ContainerId: "absent", ExecId: "absent", OCI: spec, Storages: []*agentpb.Storage{s}})
		// The answer comes in time, and tells what there is instead.
		if err == nil || !strings.Contains(err.Error(), "SCSI address 1:3") || !strings.Contains(err.Error(), "sda at") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("scratch", func(t *testing.T) { testScratch(t, g) })
	t.Run("layers", func(t *testing.T) { testVerityLayers(t, g) })
}

// testDiskAsDevice gives a container a SCSI disk itself, under the numbers that
// the host has for it.
func testDiskAsDevice(t *testing.T, g *Guest) {
	data := randomBytes(mebibyte)
	path := filepath.Join(t.TempDir(), "raw")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := g.PlugSCSI(t.Context(), "raw", vm.Disk{Path: path}, 2, 0); err != nil {
		t.Fatal(err)
	}
	spec := containerSpec("raw", "sha256sum", "/dev/raw")
	spec.Linux.Devices = []*agentpb.LinuxDevice{{Path: "/dev/raw", Type: "b", Major: 7, Minor: 99, FileMode: 0o600}}
	spec.Linux.Resources.Devices = []*agentpb.LinuxDeviceCgroup{{Access: "rwm"}, {Allow: true, Type: "b", Major: 7, Minor: 99, Access: "rm"}}
	call(t, g.Agent.CreateContainer, &agentpb.CreateContainerRequest{ContainerId: "raw", ExecId: "raw", OCI: spec,
		Devices: []*agentpb.Device{{Type: "scsi", Id: "2:0", ContainerPath: "/dev/raw"}}})
	t.Cleanup(func() { call(t, g.Agent.RemoveContainer, &agentpb.RemoveContainerRequest{ContainerId: "raw"}) })
	call(t, g.Agent.StartContainer, &agentpb.StartContainerRequest{ContainerId: "raw"})
	if got, want := g.output(t, "raw"), fmt.Sprintf("%x  /dev/raw\n", sha256.Sum256(data)); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
