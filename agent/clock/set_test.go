package clock

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

func TestSet(t *testing.T) {
	floor := built.Add(24 * time.Hour)
	for _, tc := range []struct {
		name      string
		sec, usec int64
		text      string
	}{
		{"at the floor", floor.Unix(), 0, ""},
		{"later", floor.Unix() + 1e6, 999_999, ""},
		{"epoch", 0, 0, "Sec: "},
		{"before the floor", floor.Unix() - 1, 999_999, "Sec: "},
		{"far future", floor.Add(maxAhead).Unix() + 1, 0, "Sec: "},
		{"negative", -1, 0, "Sec: "},
		{"overflow", math.MaxInt64, 0, "Sec: "},
		{"negative microseconds", floor.Unix(), -1, "Usec: "},
		{"a whole second", floor.Unix(), 1_000_000, "Usec: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := &guest{now: floor}
			k := &Keeper{kernel: g, floor: floor}
			err := k.Set(t.Context(), tc.sec, tc.usec)
			if tc.text == "" {
				if want := time.Unix(tc.sec, tc.usec*1000); err != nil || !g.now.Equal(want) || k.State().Steps != 1 {
					t.Errorf("clock is %v, want %v; %v", g.now, want, err)
				}
				return
			}
			if !errdefs.IsInvalidArgument(err) || !strings.HasPrefix(err.Error(), tc.text) {
				t.Errorf("got %v", err)
			}
			if g.sets != 0 {
				t.Errorf("the clock was set to %v", g.now)
			}
		})
	}
	g := &guest{now: floor}
	if err := (&Keeper{kernel: g}).Set(t.Context(), release-1, 0); !errdefs.IsInvalidArgument(err) || g.sets != 0 {
		t.Errorf("without a floor: %v", err)
	}
}
