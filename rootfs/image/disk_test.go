package image

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func diskTree() *tree {
	t := newTree()
	t.dir("/tmp", 0o777, true)
	t.file("/init", bytes.Repeat([]byte("program"), 100_000), 0o755)
	t.file("/etc/coffer/agent.toml", []byte("text"), 0o644)
	t.file("/etc/empty", nil, 0o600)
	t.add("/dev/console", entry{kind: kindCharDev, perm: 0o600, major: 5, minor: 1})
	t.add("/sbin/init", entry{kind: kindLink, perm: 0o777, data: []byte("../init")})
	return t
}

func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "PATH=/sbin:/usr/sbin:"+os.Getenv("PATH"), "TZ=UTC")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return string(out)
}

// The disk is the same whenever and wherever it is made: no time but the fixed
// one is in it.
func TestDisk(t *testing.T) {
	disk, err := packDisk(t.Context(), diskTree())
	if err != nil {
		t.Fatal(err)
	}
	again, err := packDisk(t.Context(), diskTree())
	if err != nil || !bytes.Equal(disk, again) {
		t.Errorf("the second disk differs, %v", err)
	}
	file := filepath.Join(t.TempDir(), "ext4")
	if err := os.WriteFile(file, disk[partitionStart:], 0o600); err != nil {
		t.Fatal(err)
	}
	tool(t, "e2fsck", "-fn", file)
	for _, tc := range []struct{ command, want string }{
		{"cat /etc/coffer/agent.toml", "text"},
		{"stat /tmp", "Mode:  01777"},
		{"stat /init", "Mode:  0755"},
		{"stat /init", "Size: 700000"},
		{"stat /init", "mtime: 0x00000001 -- Thu Jan  1 00:00:01 1970"},
		{"stat /init", "ctime: 0x00000001"},
		{"stat /etc/empty", "Mode:  0600"},
		{"stat /etc", "User:     0   Group:     0"},
		{"stat /sbin/init", `Fast link dest: "../init"`},
		{"stat /dev/console", "Device major/minor number: 05:01"},
		{"show_super_stats -h", "Filesystem created:       Thu Jan  1 00:00:01 1970"},
		{"show_super_stats -h", "Last write time:          Thu Jan  1 00:00:01 1970"},
	} {
		if got := tool(t, "debugfs", "-R", tc.command, file); !strings.Contains(got, tc.want) {
			t.Errorf("%s: got %s, want %q", tc.command, got, tc.want)
		}
	}
}

func TestDiskRefuses(t *testing.T) {
	for name, path := range map[string]string{"blank": "/a b", "line": "/a\nrm x", "quote": `/a"b`} {
		tr := newTree()
		tr.file(path, nil, 0o644)
		if _, err := packDisk(t.Context(), tr); err == nil {
			t.Errorf("%s: a path that debugfs reads otherwise was taken", name)
		}
	}
	if err := runTool(t.Context(), "write /no/such/file x\n", "debugfs", "-w", "-f", "-", "/no/such/disk"); err == nil {
		t.Error("debugfs failed and nobody noticed")
	}
}

func TestPartitionTable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, append(PartitionTable(4<<20), make([]byte, 4<<20)...), 0o600); err != nil {
		t.Fatal(err)
	}
	got := strings.Fields(tool(t, "partx", "--show", "--noheadings", "-o", "NR,START,SECTORS,TYPE", file))
	if want := []string{"1", "2048", "8192", "0x83"}; !slices.Equal(got, want) {
		t.Errorf("partx reads %v, want %v", got, want)
	}
}
