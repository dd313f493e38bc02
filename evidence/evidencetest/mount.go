package evidencetest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// tsmDir is where the kernel has it.
const tsmDir = "/sys/kernel/config/tsm/report"

// MountTSM puts f where the kernel would have configfs-tsm, as a file system
// that programs cannot tell from it: a test may hand it to one that it does not
// share memory with. The test needs root, /dev/fuse and a mount namespace of
// its own, since this covers /sys/kernel.
func MountTSM(t testing.TB, f *TSM) {
	t.Helper()
	if err := unix.Mount("tmpfs", "/sys/kernel", "tmpfs", 0, ""); err != nil {
		t.Fatalf("cover /sys/kernel: %v", err)
	}
	if err := os.MkdirAll(tsmDir, 0o755); err != nil {
		t.Fatal(err)
	}
	server, err := fs.Mount(tsmDir, &tsmRoot{tsm: f}, &fs.Options{
		MountOptions: fuse.MountOptions{DirectMountStrict: true, FsName: "configfs", Name: "configfs"},
	})
	if err != nil {
		t.Fatalf("mount the report interface: %v", err)
	}
	t.Cleanup(func() {
		if err := server.Unmount(); err != nil {
			t.Error(err)
		}
		if err := unix.Unmount("/sys/kernel", unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// tsmRoot is the directory in which entries are made.
type tsmRoot struct {
	fs.Inode
	tsm *TSM
}

// Mkdir makes an entry, which has its attributes at once.
func (r *tsmRoot) Mkdir(ctx context.Context, _ string, _ uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	key, err := r.tsm.MkdirTemp()
	if err != nil {
		return nil, fs.ToErrno(err)
	}
	dir := r.NewPersistentInode(ctx, &tsmEntry{key: key}, fs.StableAttr{Mode: fuse.S_IFDIR})
	for _, name := range []string{"provider", "inblob", "outblob", "auxblob", "generation"} {
		attr := &tsmAttr{tsm: r.tsm, key: key, name: name}
		dir.AddChild(name, dir.NewPersistentInode(ctx, attr, fs.StableAttr{Mode: fuse.S_IFREG}), true)
	}
	out.Mode = fuse.S_IFDIR | 0o755
	return dir, 0
}

// Rmdir removes an entry with its attributes, as configfs does.
func (r *tsmRoot) Rmdir(_ context.Context, name string) syscall.Errno {
	dir := r.GetChild(name)
	if dir == nil {
		return syscall.ENOENT
	}
	entry, ok := dir.Operations().(*tsmEntry)
	if !ok {
		return syscall.ENOTDIR
	}
	if err := r.tsm.Remove(entry.key); err != nil {
		return syscall.ENOENT
	}
	return 0
}

type tsmEntry struct {
	fs.Inode
	key string
}

type tsmAttr struct {
	fs.Inode
	tsm       *TSM
	key, name string
}

func (a *tsmAttr) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (a *tsmAttr) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode = fuse.S_IFREG | 0o644
	out.Size = 4096
	return 0
}

// Setattr ignores truncation, as configfs does.
func (a *tsmAttr) Setattr(ctx context.Context, h fs.FileHandle, _ *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	return a.Getattr(ctx, h, out)
}

func (a *tsmAttr) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	v, err := a.tsm.ReadAttr(a.key, a.name, 1<<20)
	if err != nil {
		return nil, fs.ToErrno(err)
	}
	from := min(int(off), len(v))
	return fuse.ReadResultData(v[from:min(from+len(dest), len(v))]), 0
}

func (a *tsmAttr) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	if off != 0 {
		return 0, syscall.EINVAL
	}
	if err := a.tsm.WriteAttr(a.key, a.name, data); err != nil {
		return 0, fs.ToErrno(err)
	}
	return uint32(len(data)), 0
}

// PutFiles covers the directory dir with one that holds the files.
func PutFiles(t testing.TB, dir string, files map[string][]byte) {
	t.Helper()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(fmt.Errorf("cover %s: %w", dir, err))
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
