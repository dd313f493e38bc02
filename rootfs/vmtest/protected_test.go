package vmtest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/coffer-cc/coffer/protos/agentpb"
	"github.com/coffer-cc/coffer/rootfs/vm"
)

// testScratch writes to encrypted and to plain scratch disks, and looks at them
// from the host's side.
func testScratch(t *testing.T, g *Guest) {
	const words = "attack at dawn "
	disk := func(slot int) string {
		path := filepath.Join(t.TempDir(), "scratch")
		if err := os.WriteFile(path, bytes.Repeat([]byte("stale"), 64*mebibyte/5), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := g.PlugDisk(t.Context(), fmt.Sprint("scratch", slot), vm.Disk{Path: path, Slot: slot}); err != nil {
			t.Fatal(err)
		}
		return path
	}
	fill := "yes '" + words + "' | head -c 4194304 >/data/f && sync && sha256sum </data/f && echo 3 >/proc/sys/vm/drop_caches && sha256sum </data/f"
	for i, tc := range []struct {
		name    string
		options []string
		visible bool
	}{
		{"plain", []string{"create_filesystem"}, true},
		{"encrypted", []string{"create_filesystem", "encryption_key=ephemeral"}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			image := disk(5 + i)
			spec, s := volume(tc.name, &agentpb.Storage{Driver: "blk", Source: fmt.Sprintf("02/%02x", 5+i), Fstype: "ext4", DriverOptions: tc.options}, "sleep 1000")
			g.start(t, tc.name, spec, s)
			out, code := g.exec(t, tc.name, fill)
			if sums := strings.Fields(out); code != 0 || len(sums) != 4 || sums[0] != sums[2] {
				t.Fatalf("ended with %d: %s", code, out)
			}
			data, err := os.ReadFile(image)
			if err != nil {
				t.Fatal(err)
			}
			if got := bytes.Contains(data, []byte(words)); got != tc.visible {
				t.Errorf("the host sees the data: %v", got)
			}
			if tc.visible {
				return
			}
			// The host changes a bit in each sector of the second half.
			for at := len(data) / 8; at < len(data); at += 4096 {
				data[at+100] ^= 1
			}
			if err := os.WriteFile(image, data, 0o600); err != nil {
				t.Fatal(err)
			}
			if out, code := g.exec(t, tc.name, "echo 3 >/proc/sys/vm/drop_caches; cat /data/f >/dev/null"); code == 0 {
				t.Errorf("changed data is read without an error: %s", out)
			}
		})
	}
}

// exec runs a shell script in a running container.
func (g *Guest) exec(t testing.TB, id, script string) (string, int32) {
	t.Helper()
	execs++
	exec := fmt.Sprint("exec", execs)
	call(t, g.Agent.ExecProcess, &agentpb.ExecProcessRequest{ContainerId: id, ExecId: exec,
		Process: &agentpb.Process{User: &agentpb.User{}, Args: []string{"sh", "-c", "exec 2>&1; " + script}, Env: []string{"PATH=/bin"}, Cwd: "/"}})
	var all []byte
	for {
		r := call(t, g.Agent.ReadStdout, &agentpb.ReadStreamRequest{ContainerId: id, ExecId: exec, Len: 1 << 20})
		if len(r.Data) == 0 {
			break
		}
		all = append(all, r.Data...)
	}
	return string(all), call(t, g.Agent.WaitProcess, &agentpb.WaitProcessRequest{ContainerId: id, ExecId: exec}).Status
}

// execs counts the processes of exec.
var execs int

// veritySalt is in hex.
const veritySalt = "00c0ffee"

// A sealedLayer is an erofs with its hash tree behind it.
type sealedLayer struct {
	bytes  []byte
	root   string // hash
	offset int    // of the tree
}

// sealLayer makes a layer of a directory, with Debian's tools.
func sealLayer(t *testing.T, dir string) sealedLayer {
	t.Helper()
	image := filepath.Join(t.TempDir(), "layer")
	if out, err := exec.Command("mkfs.erofs", image, dir).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.erofs: %v: %s", err, out)
	}
	st, err := os.Stat(image)
	if err != nil {
		t.Fatal(err)
	}
	l := sealedLayer{offset: int(st.Size()+4095) &^ 4095}
	if err := os.Truncate(image, int64(l.offset)); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("veritysetup", "format", "--salt="+veritySalt, fmt.Sprintf("--hash-offset=%d", l.offset), image, image).CombinedOutput()
	if err != nil {
		t.Fatalf("veritysetup: %v: %s", err, out)
	}
	hash := regexp.MustCompile(`Root hash:\s+([0-9a-f]{64})`).FindSubmatch(out)
	if hash == nil {
		t.Fatalf("veritysetup says %s", out)
	}
	l.root = string(hash[1])
	if l.bytes, err = os.ReadFile(image); err != nil {
		t.Fatal(err)
	}
	return l
}

// partitioned puts each layer into a partition of a GPT disk, and returns where
// they begin.
func partitioned(t *testing.T, path string, layers ...sealedLayer) (starts []int) {
	t.Helper()
	script, at := "label: gpt\n", mebibyte
	for _, l := range layers {
		size := (len(l.bytes) + mebibyte - 1) &^ (mebibyte - 1)
		script += fmt.Sprintf("start=%d, size=%d\n", at/512, size/512)
		starts, at = append(starts, at), at+size
	}
	disk := make([]byte, at+mebibyte)
	for i, l := range layers {
		copy(disk[starts[i]:], l.bytes)
	}
	if err := os.WriteFile(path, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sfdisk", "--quiet", path)
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v: %s", err, out)
	}
	return starts
}

// layerStorage asks for a layer as the Rust shim does.
func layerStorage(source, point string, number int, l sealedLayer) *agentpb.Storage {
	return &agentpb.Storage{Driver: "blk", Source: source, Fstype: "erofs", MountPoint: point, Options: []string{
		"ro", "X-kata.overlay-lower", "X-kata.multi-layer=true", "X-kata.gpt-partitioned=true", fmt.Sprintf("X-kata.partition-number=%d", number),
		"X-kata.dmverity-enabled=true", "X-kata.dmverity.roothash=" + l.root, fmt.Sprintf("X-kata.dmverity.hashoffset=%d", l.offset),
		"X-kata.dmverity.salt=" + veritySalt, "X-kata.dmverity.algorithm=sha256",
	}}
}

// testVerityLayers runs a container on layers in partitions, and sees what a
// flipped byte does in each part of them.
func testVerityLayers(t *testing.T, g *Guest) {
	bottomDir, topDir := t.TempDir(), t.TempDir()
	makeRoot(t, bottomDir)
	const secret = "the workload's own words, on the top layer"
	if err := os.WriteFile(filepath.Join(topDir, "words"), bytes.Repeat([]byte(secret+"\n"), 500), 0o644); err != nil {
		t.Fatal(err)
	}
	top, bottom := sealLayer(t, topDir), sealLayer(t, bottomDir)
	wrong := top
	wrong.root = strings.Repeat("0", 64)
	for i, tc := range []struct {
		name   string
		change func(disk []byte, starts []int)
		ask    sealedLayer
		create string // why the container is refused; empty when it is created
		output string // of a read of the file
	}{
		{"intact", func([]byte, []int) {}, top, "", secret},
		{"flipped data", func(d []byte, s []int) { flip(t, d, s[0], s[1], secret) }, top, "", "Input/output error"},
		{"flipped superblock", func(d []byte, s []int) { d[s[0]+1024] ^= 1 }, top, "mount", ""},
		{"flipped hash", func(d []byte, s []int) { d[s[0]+top.offset+4096] ^= 1 }, top, "mount", ""},
		{"another root hash", func([]byte, []int) {}, wrong, "mount", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			slot, path, id := 10+i, filepath.Join(t.TempDir(), "disk"), fmt.Sprint("verity", i)
			starts := partitioned(t, path, top, bottom)
			disk, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			tc.change(disk, starts)
			if err := os.WriteFile(path, disk, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := g.PlugDisk(t.Context(), id, vm.Disk{Path: path, Slot: slot, ReadOnly: true}); err != nil {
				t.Fatal(err)
			}
			spec := containerSpec(id, "sh", "-c", "exec 2>&1; echo x >/new; cat /words")
			spec.Root = &agentpb.Root{Path: "/run/kata-containers/" + id + "/rootfs"}
			source := fmt.Sprintf("02/%02x", slot)
			// The order is that of the partitions, not of the request.
			storages := []*agentpb.Storage{layerStorage(source, spec.Root.Path, 2, bottom), layerStorage(source, spec.Root.Path, 1, tc.ask)}
			if tc.create != "" {
				g.refuses(t, id, tc.create, spec, storages...)
				return
			}
			g.start(t, id, spec, storages...)
			if out := g.output(t, id); !strings.Contains(out, tc.output) {
				t.Errorf("got %.200q, want %q", out, tc.output)
			}
		})
	}
}

// flip changes one bit of the last place between start and end where text
// stands: the first may lie beside the inode.
func flip(t *testing.T, disk []byte, start, end int, text string) {
	t.Helper()
	at := bytes.LastIndex(disk[start:end], []byte(text))
	if at < 0 {
		t.Fatal("the layer does not hold the text as it is")
	}
	disk[start+at] ^= 1
}
