package imagepull_test

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/imagepull"
	. "github.com/coffer-cc/coffer/imagepull/imagepulltest"
)

func TestOneUnpackForManyContainers(t *testing.T) {
	r := NewRegistry(t)
	layers := twoLayers(t, Gzip)
	r.Push(t, "app:1", layers...)
	r.Push(t, "other:1", layers...)
	p := newPuller(t, r, nil)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			ref := r.Ref([]string{"app:1", "other:1"}[i%2])
			img, err := p.Pull(t.Context(), ref, string(rune('a'+i)))
			if err != nil {
				t.Error(err)
			} else if read(t, img.Rootfs, "etc/a") != "new" {
				t.Error("wrong contents")
			}
		})
	}
	wg.Wait()
	for _, l := range layers {
		if n := r.Count("GET", l.Digest().String()); n != 1 {
			t.Errorf("layer was fetched %d times", n)
		}
	}
}

func TestOwnersDoNotSeeEachOther(t *testing.T) {
	r := NewRegistry(t)
	r.Push(t, "app:1", NewLayer(t, Gzip, File("a", "a")))
	r.Push(t, "app:2", NewLayer(t, Gzip, File("a", "2")))
	p := newPuller(t, r, nil)
	one, err := p.Pull(t.Context(), r.Ref("app:1"), "one")
	if err != nil {
		t.Fatal(err)
	}
	two, err := p.Pull(t.Context(), r.Ref("app:1"), "../two")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(one.Rootfs, "a"), []byte("changed"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := read(t, two.Rootfs, "a"); got != "a" {
		t.Errorf("other owner reads %q", got)
	}
	again, err := p.Pull(t.Context(), r.Ref("app:1"), "one")
	if err != nil || again.Rootfs != one.Rootfs || read(t, again.Rootfs, "a") != "changed" {
		t.Errorf("second pull: %+v %v", again, err)
	}
	if _, err := p.Pull(t.Context(), r.Ref("app:2"), "one"); !errdefs.IsAlreadyExists(err) {
		t.Errorf("another image for the same owner: %v", err)
	}
}

func TestRepeatedLayerCountsOnTop(t *testing.T) {
	r := NewRegistry(t)
	a, b := NewLayer(t, Gzip, File("f", "a")), NewLayer(t, Gzip, File("f", "b"))
	r.Push(t, "app:1", a, b, a)
	p := newPuller(t, r, nil)
	img, err := p.Pull(t.Context(), r.Ref("app:1"), "c1")
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, img.Rootfs, "f"); got != "a" {
		t.Errorf("f is %q", got)
	}
	if n := r.Count("GET", a.Digest().String()); n != 1 {
		t.Errorf("layer was fetched %d times", n)
	}
}

// A layer that is in the store already opens nothing: each pull asks for the
// key, and an image that merely claims the same contents gets nothing.
func TestCachedEncryptedLayer(t *testing.T) {
	r, keys := NewRegistry(t), NewKeys()
	l := NewLayer(t, Gzip, File("secret", "s"))
	r.Push(t, "app:1", l)
	r.Encrypt(t, "app:1", "app:enc", keys, "default/key/1")
	p := newPuller(t, r, func(c *imagepull.Config) { c.Keys = keys })
	if _, err := p.Pull(t.Context(), r.Ref("app:enc"), "c1"); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Pull(t.Context(), r.Ref("app:enc"), "c2"); err != nil {
		t.Fatal(err)
	}
	if n := keys.Asked("default/key/1"); n != 2 {
		t.Errorf("key was asked for %d times", n)
	}
	keys.Refuse(errdefs.ErrPermissionDenied)
	if _, err := p.Pull(t.Context(), r.Ref("app:enc"), "c3"); !errdefs.IsPermissionDenied(err) {
		t.Errorf("after the broker refuses: %v", err)
	}
	claim := NewLayer(t, Gzip, File("other", "o"))
	claim.DiffID = l.DiffID
	r.Push(t, "evil:1", claim)
	if _, err := p.Pull(t.Context(), r.Ref("evil:1"), "c4"); !isDataLoss(err) {
		t.Errorf("claimed diff id: %v", err)
	}
}

// One page of mount options would hold the paths of about a hundred layers.
func TestManyLayers(t *testing.T) {
	r := NewRegistry(t)
	var layers []Layer
	for i := range 150 {
		gone := fmt.Sprintf(".wh.f%d", i-2)
		layers = append(layers, NewLayer(t, Gzip, File(fmt.Sprint("f", i), fmt.Sprint(i)), File(gone, ""), File("last", fmt.Sprint(i))))
	}
	r.Push(t, "app:1", layers...)
	img, err := newPuller(t, r, nil).Pull(t.Context(), r.Ref("app:1"), "c1")
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(img.Rootfs)
	if err != nil || len(entries) != 3 || read(t, img.Rootfs, "last") != "149" || read(t, img.Rootfs, "f148") != "148" {
		t.Errorf("%d entries, %v", len(entries), err)
	}
}
