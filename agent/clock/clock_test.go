package clock

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// guest is a clock that nobody moves but the keeper.
type guest struct {
	now   time.Time
	slews []time.Duration
	sets  int
}

func (g *guest) Now() time.Time        { return g.now }
func (g *guest) Set(t time.Time) error { g.now = t; g.sets++; return nil }
func (g *guest) Slew(d time.Duration) error {
	g.slews = append(g.slews, d)
	return nil
}

// host says what the test wants.
type host struct {
	offset time.Duration
	err    error
}

func (host) Name() string                     { return "host" }
func (h host) Offset() (time.Duration, error) { return h.offset, h.err }

var built = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestFloor(t *testing.T) {
	g := &guest{now: time.Unix(0, 0)}
	k := &Keeper{kernel: g}
	for _, step := range []struct {
		floor, want time.Time
		raised      bool
	}{
		{time.Time{}, time.Unix(0, 0), false},
		{built, built, true},
		{built.Add(-time.Hour), built, true},
		{built.Add(time.Hour), built.Add(time.Hour), true},
	} {
		if err := k.NotBefore(step.floor); err != nil {
			t.Fatal(err)
		}
		if !g.now.Equal(step.want) || k.State().Raised != step.raised {
			t.Errorf("floor %v: clock is %v, raised %v", step.floor, g.now, k.State().Raised)
		}
	}
}

func TestBounds(t *testing.T) {
	for _, tc := range []struct {
		name   string
		offset time.Duration
		first  bool
		step   time.Duration
		slew   time.Duration
		failed error
	}{
		{"nothing to do", 50 * time.Microsecond, false, 0, 0, nil},
		{"a little behind", 20 * time.Millisecond, false, 0, 20 * time.Millisecond, nil},
		{"a little ahead", -20 * time.Millisecond, false, 0, -20 * time.Millisecond, nil},
		{"resumed after a pause", 10 * time.Minute, false, 10 * time.Minute, 0, nil},
		{"a leap into the future", 24 * time.Hour, false, maxStep, 0, nil},
		{"the first look", 24 * time.Hour, true, 24 * time.Hour, 0, nil},
		{"the first look, too far", maxAhead + time.Hour, true, 0, 0, unix.ERANGE},
		{"a leap back", -24 * time.Hour, false, 0, -maxSlew, nil},
		{"a leap back at first", -24 * time.Hour, true, 0, -maxSlew, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := &guest{now: built}
			k := &Keeper{kernel: g, floor: built}
			if err := k.correct(host{offset: tc.offset}, tc.first); !errors.Is(err, tc.failed) {
				t.Errorf("got %v", err)
			}
			var slew time.Duration
			if len(g.slews) > 0 {
				slew = g.slews[0]
			}
			if got := g.now.Sub(built); got != tc.step || slew != tc.slew {
				t.Errorf("stepped %v and slewed %v, want %v and %v", got, slew, tc.step, tc.slew)
			}
			if s := k.State(); s.Offset != tc.offset || (s.Steps > 0) != (tc.step > 0) {
				t.Errorf("state %+v", s)
			}
		})
	}
}

// A source that fails changes nothing and does not end the keeping.
func TestFollow(t *testing.T) {
	g := &guest{now: built}
	k := &Keeper{kernel: g, floor: built}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := k.Follow(ctx, host{err: unix.EIO}); err != nil {
		t.Error(err)
	}
	if g.sets+len(g.slews) > 0 || k.State().Source != "host" {
		t.Errorf("clock was moved: %+v, %+v", g, k.State())
	}
}

func TestNearest(t *testing.T) {
	widths := []time.Duration{9, 3, 7, 5, 8}
	offset, err := nearest(func() (before, there, after time.Time, err error) {
		w := widths[0] * time.Millisecond
		widths = widths[1:]
		return built, built.Add(w/2 + w), built.Add(w), nil
	})
	if err != nil || offset != 3*time.Millisecond {
		t.Errorf("got %v, %v", offset, err)
	}
}

// The device itself is KVM's. Its name and its place are from a guest's /sys.
func TestOpenKVM(t *testing.T) {
	root := t.TempDir()
	if _, err := OpenKVM(root); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("no devices: %v", err)
	}
	for path, text := range map[string]string{
		"sys/class/ptp/ptp0/clock_name": "e1000e\n", "sys/class/ptp/ptp1/clock_name": kvmName + "\n",
		"dev/ptp0": "0", "dev/ptp1": "1",
	} {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p, err := OpenKVM(root)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if filepath.Base(p.device.Name()) != "ptp1" {
		t.Errorf("opened %s", p.device.Name())
	}
	if _, err := p.Offset(); err == nil { // a file is no clock
		t.Error("read the time from a file")
	}
}
