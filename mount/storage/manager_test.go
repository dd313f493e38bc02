package storage

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
)

// book is a Handler that mounts nothing and writes down what it is asked for.
type book struct {
	mu        sync.Mutex
	entries   []string
	attaching chan struct{} // receives at the begin of Attach, when not nil
	goOn      chan struct{} // holds Attach up, when not nil
	failOn    string        // source that fails to attach
	stuck     string        // source that fails to detach
}

func (b *book) write(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.entries = append(b.entries, fmt.Sprintf(format, args...))
}

// take returns and forgets the entries.
func (b *book) take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer func() { b.entries = nil }()
	return strings.Join(b.entries, " ")
}

func (b *book) Attach(ctx context.Context, owner string, s Storage) (Volume, error) {
	if b.attaching != nil && s.Source == "slow" {
		b.attaching <- struct{}{}
		<-b.goOn
	}
	if s.Source == b.failOn {
		return nil, errors.New("no such luck")
	}
	b.write("+%s", s.Source)
	return &page{b, s}, nil
}

type page struct {
	b *book
	s Storage
}

func (p *page) Path() string { return p.s.MountPoint }

func (p *page) Detach(context.Context) error {
	if p.s.Source == p.b.stuck {
		return errors.New("device is busy")
	}
	p.b.write("-%s", p.s.Source)
	return nil
}

// keptBook makes volumes that stay, as an emptyDir does.
type keptBook struct{ *book }

type keptPage struct{ Volume }

func (keptPage) keep() {}

func (k keptBook) Attach(ctx context.Context, owner string, s Storage) (Volume, error) {
	v, err := k.book.Attach(ctx, owner, s)
	return keptPage{v}, err
}

// privateBook mounts at the owner's rootfs alone.
type privateBook struct{ *book }

func (privateBook) only(owner string) (string, error) {
	return imageGuestPull{ground: ground{root: DefaultRoot}}.only(owner)
}

func ledger() (*Manager, *book) {
	b := new(book)
	return NewManager(Deps{}, map[string]Handler{"fake": b, "dir": keptBook{b}, "image": privateBook{b}}), b
}

func fake(source, rel string) Storage {
	return Storage{Driver: "fake", Source: source, MountPoint: filepath.Join(DefaultRoot, rel)}
}

func with(s Storage, change func(*Storage)) Storage { change(&s); return s }

func add(t *testing.T, m *Manager, owner string, ss ...Storage) []Volume {
	t.Helper()
	vs, err := m.Add(t.Context(), owner, ss)
	if err != nil {
		t.Fatal(err)
	}
	return vs
}

func release(t *testing.T, m *Manager, owner string) {
	t.Helper()
	if err := m.Release(t.Context(), owner); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, b *book, want string) {
	t.Helper()
	if got := b.take(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestOrderAndRelease(t *testing.T) {
	m, b := ledger()
	vs := add(t, m, "c1", fake("a", "l/a"), fake("b", "l/b"), fake("ab", "c1/rootfs"))
	expect(t, b, "+a +b +ab")
	if len(vs) != 3 || vs[2].Path() != DefaultRoot+"/c1/rootfs" {
		t.Errorf("volumes %v", vs)
	}
	release(t, m, "c1")
	expect(t, b, "-ab -b -a")
	release(t, m, "c1")
	release(t, m, "nobody")
	expect(t, b, "")
	if len(m.points) != 0 {
		t.Errorf("%d entries left", len(m.points))
	}
}

func TestSharing(t *testing.T) {
	m, b := ledger()
	first := add(t, m, "c1", fake("a", "v"))
	second := add(t, m, "c2", fake("a", "v"), fake("a", "v/"))
	if first[0] != second[0] || first[0] != second[1] {
		t.Error("three requests, more than one volume")
	}
	add(t, m, "c2", with(fake("a", "v"), func(s *Storage) { s.Options = []string{"ro"} }))
	expect(t, b, "+a")
	release(t, m, "c1")
	expect(t, b, "")
	release(t, m, "c2") // once, though c2 asked three times
	expect(t, b, "-a")
}

func TestDifferentStorageOnOnePath(t *testing.T) {
	base := with(fake("a", "c1/rootfs"), func(s *Storage) { s.Options = []string{"lowerdir=/x"} })
	for _, tt := range []struct {
		name   string
		change func(*Storage)
	}{
		{"source", func(s *Storage) { s.Source = "b" }},
		{"type", func(s *Storage) { s.FSType = "ext4" }},
		{"driver", func(s *Storage) { s.Driver = "dir" }},
		{"driver options", func(s *Storage) { s.DriverOptions = []string{"x"} }},
		{"data", func(s *Storage) { s.Options = []string{"lowerdir=/y"} }},
		{"image over a parked mount", func(s *Storage) { s.Driver = "image" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, b := ledger()
			add(t, m, "host", base)
			_, err := m.Add(t.Context(), "c1", []Storage{with(base, tt.change)})
			if !errdefs.IsAlreadyExists(err) {
				t.Errorf("got %v", err)
			}
			release(t, m, "c1")
			expect(t, b, "+a")
			release(t, m, "host")
			expect(t, b, "-a")
		})
	}
}

func TestKept(t *testing.T) {
	m, b := ledger()
	shared := with(fake("s", "shared"), func(s *Storage) { s.Shared = true })
	dir := with(fake("d", "dir"), func(s *Storage) { s.Driver = "dir" })
	add(t, m, "c1", shared, dir, fake("a", "a"))
	release(t, m, "c1")
	expect(t, b, "+s +d +a -a")
	add(t, m, "c2", shared, dir) // the container came back
	expect(t, b, "")
	if err := m.ReleaseAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect(t, b, "-d -s")
	if err := m.ReleaseAll(t.Context()); err != nil || len(m.points) != 0 {
		t.Errorf("again: %v, %d entries", err, len(m.points))
	}
}

func TestUndo(t *testing.T) {
	m, b := ledger()
	b.failOn = "bad"
	dir := func(source, rel string) Storage {
		return with(fake(source, rel), func(s *Storage) { s.Driver = "dir" })
	}
	add(t, m, "c1", fake("old", "old"), dir("olddir", "olddir"))
	b.take()
	_, err := m.Add(t.Context(), "c2", []Storage{fake("old", "old"), dir("olddir", "olddir"), fake("a", "a"), dir("newdir", "n"), fake("bad", "bad")})
	if err == nil || !strings.Contains(err.Error(), `attach storage "`+DefaultRoot+`/bad" of driver "fake": no such luck`) {
		t.Errorf("got %v", err)
	}
	expect(t, b, "+a +newdir -newdir -a")
	if p := m.find("old"); p.owners["c2"] {
		t.Error("c2 still owns what it joined")
	}
	// What the owner held before the failed call is still held.
	if _, err := m.Add(t.Context(), "c1", []Storage{fake("old", "old"), fake("bad", "bad")}); err == nil {
		t.Fatal("attached")
	}
	expect(t, b, "")
	release(t, m, "c1")
	expect(t, b, "-old")
}

func TestUndoOfACancelledRequest(t *testing.T) {
	m, b := ledger()
	ctx, cancel := context.WithCancel(t.Context())
	b.failOn = "bad"
	add(t, m, "c1")
	cancel()
	if _, err := m.Add(ctx, "c1", []Storage{fake("a", "a"), fake("bad", "b")}); err == nil {
		t.Fatal("attached")
	}
	expect(t, b, "+a -a")
}

func TestUndoFails(t *testing.T) {
	m, b := ledger()
	b.failOn, b.stuck = "bad", "a"
	_, err := m.Add(t.Context(), "c1", []Storage{fake("z", "z"), fake("a", "a"), fake("bad", "bad")})
	var undo *UndoError
	if !errors.As(err, &undo) || !strings.Contains(undo.Undo.Error(), "busy") || !strings.Contains(undo.Cause.Error(), "luck") {
		t.Fatalf("got %v", err)
	}
	expect(t, b, "+z +a -z") // the rest is undone all the same
	if err := m.Release(t.Context(), "c1"); err == nil {
		t.Error("released a busy mount")
	}
	b.stuck = ""
	release(t, m, "c1")
	expect(t, b, "-a")
}

func TestParallelAddMountsOnce(t *testing.T) {
	m, b := ledger()
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			owner := fmt.Sprint("c", i)
			for range 20 {
				if _, err := m.Add(t.Context(), owner, []Storage{fake("a", "v")}); err != nil {
					t.Error(err)
				}
				if i > 0 {
					if err := m.Release(t.Context(), owner); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	plus, minus := 0, 0
	for _, e := range strings.Fields(b.take()) {
		if e == "+a" {
			plus++
		} else {
			minus++
		}
		if plus-minus != 0 && plus-minus != 1 {
			t.Fatal("mounted twice")
		}
	}
	if plus-minus != 1 {
		t.Errorf("%d mounts, %d unmounts, and c0 holds it", plus, minus)
	}
}

// A container that takes minutes to pull must not hold up another one's end.
func TestSlowAttachBlocksNobodyElse(t *testing.T) {
	m, b := ledger()
	b.attaching, b.goOn = make(chan struct{}), make(chan struct{})
	add(t, m, "c1", fake("a", "a"))
	done := make(chan error)
	go func() {
		_, err := m.Add(context.Background(), "c2", []Storage{fake("slow", "slow")})
		done <- err
	}()
	<-b.attaching
	release(t, m, "c1")
	add(t, m, "c3", fake("b", "b"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Add(ctx, "c4", []Storage{fake("slow", "slow")}); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting for a slow one: %v", err)
	}
	close(b.goOn)
	if err := <-done; err != nil {
		t.Error(err)
	}
	expect(t, b, "+a -a +b +slow")
}

func TestHostileMountPoints(t *testing.T) {
	m, b := ledger()
	add(t, m, "c1", with(fake("img", "c1/rootfs"), func(s *Storage) { s.Driver = "image" }))
	b.take()
	image := func(s *Storage) { s.Driver = "image" }
	for _, tt := range []struct {
		name  string
		owner string
		s     Storage
		class func(error) bool
	}{
		{"outside", "c2", with(fake("x", ""), func(s *Storage) { s.MountPoint = "/etc" }), errdefs.IsInvalidArgument},
		{"dot dot", "c2", with(fake("x", ""), func(s *Storage) { s.MountPoint = DefaultRoot + "/a/../../../etc" }), errdefs.IsInvalidArgument},
		{"relative", "c2", with(fake("x", ""), func(s *Storage) { s.MountPoint = "a" }), errdefs.IsInvalidArgument},
		{"empty", "c2", with(fake("x", ""), func(s *Storage) { s.MountPoint = "" }), errdefs.IsInvalidArgument},
		{"the root", "c2", fake("x", ""), errdefs.IsInvalidArgument},
		{"the image store", "c2", fake("x", "image"), errdefs.IsPermissionDenied},
		{"inside the image store", "c2", fake("x", "image/layers/1"), errdefs.IsPermissionDenied},
		{"over the container", "c2", fake("x", "c1"), errdefs.IsFailedPrecondition},
		{"inside the image", "c1", fake("x", "c1/rootfs/etc"), errdefs.IsPermissionDenied},
		{"another one's image", "c2", with(fake("img", "c1/rootfs"), image), errdefs.IsPermissionDenied},
		{"image elsewhere", "c2", with(fake("img", "shared/c2"), image), errdefs.IsPermissionDenied},
		{"image of no container", "", with(fake("img", "rootfs"), image), errdefs.IsInvalidArgument},
		{"owner climbs", "../c2", with(fake("img", "c2/rootfs"), image), errdefs.IsInvalidArgument},
		{"unknown driver", "c2", with(fake("x", "x"), func(s *Storage) { s.Driver = "9p" }), errdefs.IsNotImplemented},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := m.Add(t.Context(), tt.owner, []Storage{tt.s}); !tt.class(err) {
				t.Errorf("got %v", err)
			}
			expect(t, b, "")
		})
	}
	add(t, m, "c2", fake("x", "c1-other"), fake("y", "shared/containers")) // beside is fine
}

func TestUnknownDriverText(t *testing.T) {
	m, _ := ledger()
	_, err := m.Add(t.Context(), "c", []Storage{{Driver: "nydus", MountPoint: DefaultRoot + "/x"}})
	if err == nil || !strings.Contains(strings.ToLower(err.Error()), "failed to find the storage handler") {
		t.Errorf("got %v", err)
	}
}

func TestTable(t *testing.T) {
	var names []string
	for name := range Handlers(Deps{}) {
		names = append(names, name)
	}
	slices.Sort(names)
	if want := "blk blk-ccw ephemeral erofs.multi-layer image_guest_pull local mmioblk nvdimm overlayfs scsi virtio-fs watchable-bind"; strings.Join(names, " ") != want {
		t.Errorf("got %v", names)
	}
}
