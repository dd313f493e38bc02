package storage

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func TestEphemeral(t *testing.T) {
	g := newGuest(t)
	shm := Storage{Driver: "ephemeral", Source: "shm", FSType: "tmpfs", MountPoint: g.path("sandbox/shm"),
		Options: []string{"noexec", "nosuid", "nodev", "mode=1777", "size=67108864"}}
	mem := Storage{Driver: "ephemeral", Source: "tmpfs", FSType: "tmpfs", MountPoint: g.path("sandbox/ephemeral/mem"), Options: []string{"fsgid=3000"}}
	g.add("sandbox", shm)
	g.add("c1", mem)
	var fs unix.Statfs_t
	if err := unix.Statfs(shm.MountPoint, &fs); err != nil || fs.Blocks*uint64(fs.Bsize) != 64<<20 || fs.Flags&unix.ST_NOEXEC == 0 {
		t.Errorf("shm: %d blocks, flags %#x, %v", fs.Blocks, fs.Flags, err)
	}
	if st := g.stat("sandbox/shm"); st.Mode&0o7777 != 0o1777 {
		t.Errorf("shm mode %o", st.Mode)
	}
	if st := g.stat("sandbox/ephemeral/mem"); st.Gid != 3000 || st.Mode&unix.S_ISGID == 0 {
		t.Errorf("mem gid %d, mode %o", st.Gid, st.Mode)
	}
	g.write("sandbox/ephemeral/mem/data", "x")
	if err := g.Release(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	g.add("c1", mem) // a restarted container finds its data
	if _, err := os.Stat(g.path("sandbox/ephemeral/mem/data")); err != nil {
		t.Error(err)
	}

	resize := func(s Storage, options ...string) error {
		s.Options = options
		return g.UpdateEphemeral(t.Context(), []Storage{s})
	}
	if err := resize(mem, "remount", "size=320M", "fsgid=3000"); err != nil {
		t.Fatal(err)
	}
	if err := unix.Statfs(mem.MountPoint, &fs); err != nil || fs.Blocks*uint64(fs.Bsize) != 320<<20 {
		t.Errorf("resized: %d blocks, %v", fs.Blocks, err)
	}
	if err := resize(shm, "size=1m"); err != nil {
		t.Fatal(err)
	}
	if err := unix.Statfs(shm.MountPoint, &fs); err != nil || fs.Flags&unix.ST_NOEXEC == 0 || fs.Blocks*uint64(fs.Bsize) != 1<<20 {
		t.Errorf("shm after resize: flags %#x, %d blocks, %v", fs.Flags, fs.Blocks, err)
	}
	for name, err := range map[string]error{
		"nothing":    g.UpdateEphemeral(t.Context(), nil),
		"no options": resize(mem),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := resize(with(mem, func(s *Storage) { s.Driver = "blk" }), "size=1m"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("other driver: %v", err)
	}
	if err := resize(with(mem, func(s *Storage) { s.MountPoint = g.path("other") }), "remount", "size=1m"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("not attached: %v", err)
	}
}

func TestEphemeralRefuses(t *testing.T) {
	g := newGuest(t)
	base := Storage{Driver: "ephemeral", Source: "tmpfs", FSType: "tmpfs", MountPoint: g.path("a/b")}
	for _, tt := range []struct {
		name   string
		change func(*Storage)
	}{
		{"other type", func(s *Storage) { s.FSType = "proc" }},
		{"no type", func(s *Storage) { s.FSType = "" }},
		{"bind of the guest", func(s *Storage) { s.Source, s.Options = "/etc", []string{"bind"} }},
		{"remount", func(s *Storage) { s.Options = []string{"remount", "size=1m"} }},
		{"loop", func(s *Storage) { s.Options = []string{"loop"} }},
		{"group", func(s *Storage) { s.Options = []string{"fsgid=banana"} }},
		{"group -1", func(s *Storage) { s.Options = []string{"fsgid=4294967295"} }},
		{"hugepages without a size", func(s *Storage) { s.FSType, s.Options = "hugetlbfs", []string{"pagesize=2097152,size="} }},
		{"hugepages of size zero", func(s *Storage) { s.FSType, s.Options = "hugetlbfs", []string{"pagesize=0,size=4096"} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := &guest{T: t, Manager: g.Manager, root: g.root}
			g.refused("c1", with(base, tt.change), errdefs.IsInvalidArgument)
		})
	}
	if _, err := g.Add(t.Context(), "c1", []Storage{with(base, func(s *Storage) { s.Options = []string{"banana=1"} })}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("unknown option: %v", err)
	}
	if names, _ := os.ReadDir(g.path("a")); len(names) != 0 {
		t.Errorf("mount point left: %v", names)
	}
}

func TestHugePages(t *testing.T) {
	g := newGuest(t)
	pool := filepath.Join(g.handlers["ephemeral"].(*ephemeral).sys, "kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
	pages := func(want string) {
		t.Helper()
		if got, err := os.ReadFile(pool); strings.TrimSpace(string(got)) != want {
			t.Errorf("pool %q, %v, want %s", got, err, want)
		}
	}
	s := Storage{Driver: "ephemeral", Source: "nodev", FSType: "hugetlbfs", MountPoint: g.path("sandbox/ephemeral/huge"), Options: []string{"pagesize=2097152,size=8388608"}}
	g.add("c1", s)
	// A second container of the pod has a limit of its own, or none.
	g.add("c2", with(s, func(s *Storage) { s.Options = []string{"pagesize=2097152,size=4194304"} }))
	g.add("c3", with(s, func(s *Storage) { s.Options = []string{"pagesize=2097152,size="} }))
	pages("7")
	var fs unix.Statfs_t
	if err := unix.Statfs(s.MountPoint, &fs); err != nil || int64(fs.Type) != unix.HUGETLBFS_MAGIC {
		t.Errorf("type %#x, %v", fs.Type, err)
	}
	bad := with(s, func(s *Storage) { s.MountPoint = g.path("x"); s.Options = append(s.Options, "banana=1") })
	if _, err := g.Add(t.Context(), "c1", []Storage{bad}); err == nil {
		t.Error("attached")
	}
	pages("7")
	if err := g.ReleaseAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	pages("3")
	g.refused("c1", with(s, func(s *Storage) { s.Options = []string{"pagesize=4096,size=8192"} }), func(err error) bool { return errors.Is(err, os.ErrNotExist) })
}
