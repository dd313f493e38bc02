package clock

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// linux is the clock of the running kernel.
type linux struct{}

func (linux) Now() time.Time { return time.Now() }

func (linux) Set(t time.Time) error {
	ts, err := unix.TimeToTimespec(t)
	if err != nil {
		return err
	}
	return unix.ClockSettime(unix.CLOCK_REALTIME, &ts)
}

// adjOffsetSingleshot is ADJ_OFFSET_SINGLESHOT of adjtimex(2): adjtime(3).
const adjOffsetSingleshot = 0x8001

func (linux) Slew(d time.Duration) error {
	t := unix.Timex{Modes: adjOffsetSingleshot, Offset: d.Microseconds()}
	if _, err := unix.Adjtimex(&t); err != nil {
		return fmt.Errorf("slew the clock: %w", err)
	}
	return nil
}
