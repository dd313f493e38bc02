package image

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
)

// A disk image is what Kata's are: a partition table of the old kind with one
// partition, and in it the same root as in the initrd, as ext4. Its kernel must
// have the driver of the disk built in.
//
//	0        partition table
//	1 MiB    ext4
const (
	partitionStart = 1 << 20
	sector         = 512
	// diskUUID stands where mke2fs would put chance.
	diskUUID = "c0ffe7c0-ffe7-4c0f-8e7c-0ffe7c0ffe70"
	// diskTime is the time of everything in it. Zero would be the present.
	diskTime = "1"
)

// packDisk makes a disk image of the tree.
func packDisk(ctx context.Context, t *tree) ([]byte, error) {
	dir, err := os.MkdirTemp("", "coffer-disk-")
	if err != nil {
		return nil, fmt.Errorf("make disk: %w", err)
	}
	defer os.RemoveAll(dir)
	script, size, err := stageDisk(dir, t.sorted())
	if err != nil {
		return nil, fmt.Errorf("make disk: %w", err)
	}
	file := filepath.Join(dir, "ext4")
	err = runTool(ctx, "", "mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-N", fmt.Sprint(len(t.entries)+64),
		"-O", "none,extent,filetype,sparse_super,large_file,dir_index,metadata_csum",
		"-U", diskUUID, "-E", "lazy_itable_init=0,nodiscard,root_owner=0:0,hash_seed="+diskUUID, file, fmt.Sprintf("%dk", size>>10))
	if err != nil {
		return nil, err
	}
	if err := runTool(ctx, script, "debugfs", "-w", "-f", "-", file); err != nil {
		return nil, err
	}
	system, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read disk: %w", err)
	}
	return append(PartitionTable(len(system)), system...), nil
}

// stageDisk writes the files to dir and the commands that put them into a file
// system of at least size bytes.
func stageDisk(dir string, entries []entry) (script string, size int, err error) {
	var out strings.Builder
	const block = 4096
	size = 8 << 20
	for i, e := range entries {
		if strings.ContainsAny(e.path+string(linkTarget(e)), " \t\n\"'\\") {
			return "", 0, fmt.Errorf("path %q: %w", e.path, errdefs.ErrInvalidArgument)
		}
		where, name := path.Split("/" + e.path)
		fmt.Fprintf(&out, "cd %s\n", where)
		size += len(e.data)&^(block-1) + 2*block
		switch e.kind {
		case kindDir:
			fmt.Fprintf(&out, "mkdir %s\n", name)
		case kindLink:
			fmt.Fprintf(&out, "symlink %s %s\n", name, e.data)
			continue
		case kindCharDev:
			fmt.Fprintf(&out, "mknod %s c %d %d\n", name, e.major, e.minor)
		default:
			staged := filepath.Join(dir, fmt.Sprint(i))
			if err := os.WriteFile(staged, e.data, 0o600); err != nil {
				return "", 0, err
			}
			fmt.Fprintf(&out, "write %s %s\n", staged, name)
		}
		fmt.Fprintf(&out, "set_inode_field %s mode 0%o\n", name, e.kind|uint32(e.perm))
	}
	size += size / 32 // tables of inodes and extents
	return out.String(), size &^ (1<<20 - 1), nil
}

func linkTarget(e entry) []byte {
	if e.kind == kindLink {
		return e.data
	}
	return nil
}

// runTool runs a program of e2fsprogs without the machine's configuration. What
// debugfs cannot do it only says, on standard error beside its name.
func runTool(ctx context.Context, stdin, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH") + ":/sbin:/usr/sbin", "MKE2FS_CONFIG=/dev/null", "E2FSPROGS_FAKE_TIME=" + diskTime, "TZ=UTC"}
	cmd.Stdin = strings.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	complaint := ""
	for line := range strings.Lines(stderr.String()) {
		if !strings.HasPrefix(line, name+" 1.") { // its version
			complaint += line
		}
	}
	if err == nil && name == "debugfs" && complaint != "" {
		err = errdefs.ErrFailedPrecondition
	}
	if err != nil {
		return fmt.Errorf("run %s: %w: %s", name, err, strings.TrimSpace(complaint))
	}
	return nil
}

// PartitionTable is a master boot record with one Linux partition, padded to
// where that begins; size is that of the partition in bytes.
func PartitionTable(size int) []byte {
	table := make([]byte, partitionStart)
	copy(table[440:], "COFR") // the disk's signature
	p := table[446:]
	p[4] = 0x83
	binary.LittleEndian.PutUint32(p[8:], partitionStart/sector)
	binary.LittleEndian.PutUint32(p[12:], uint32(size/sector))
	table[510], table[511] = 0x55, 0xaa
	return table
}
