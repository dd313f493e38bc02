package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// How long OnlineCPUs waits for processors to appear after the host plugged
// them: ACPI announces them some time after the host's command has returned.
const (
	cpuPasses = 100
	cpuPause  = 50 * time.Millisecond
)

// OnlineCPUs brings processors online until total are. Enough is fine, so the
// call may be repeated. It answers ErrUnavailable when they do not appear.
func (m Machine) OnlineCPUs(ctx context.Context, total uint32) error {
	if total > 1<<16 {
		return fmt.Errorf("nb_cpus: %d processors: %w", total, errdefs.ErrInvalidArgument)
	}
	var online int
	for pass := range cpuPasses {
		if pass > 0 {
			select {
			case <-ctx.Done():
				return fmt.Errorf("online processors: %w", ctx.Err())
			case <-time.After(cpuPause):
			}
		}
		var err error
		if online, err = m.onlinePass(int(total)); err != nil {
			return err
		}
		if online >= int(total) {
			return nil
		}
	}
	return fmt.Errorf("online processors: %d of %d are there: %w", online, total, errdefs.ErrUnavailable)
}

// onlinePass brings up no more than are missing and returns how many are online.
// A processor that refuses is left to the next pass.
func (m Machine) onlinePass(total int) (int, error) {
	offline, online, err := switches(filepath.Join(m.Sys, "devices/system/cpu"), "cpu")
	if err != nil {
		return 0, err
	}
	for _, path := range offline {
		if online >= total {
			break
		}
		if writeKnob(path, "1") == nil {
			online++
		}
	}
	return online, nil
}

// switches lists the "online" files of the numbered entries of a sysfs directory
// that read 0, and counts the entries that are on. The first processor has no
// such file because it cannot be turned off.
func switches(dir, prefix string) (offline []string, online int, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, 0, fmt.Errorf("list %ss: %w", prefix, err)
	}
	for _, e := range entries {
		number, ok := strings.CutPrefix(e.Name(), prefix)
		if _, err := strconv.ParseUint(number, 10, 32); !ok || err != nil {
			continue
		}
		path := filepath.Join(dir, e.Name(), "online")
		state, err := readWord(path)
		switch {
		case errors.Is(err, os.ErrNotExist) || state == "1":
			online++
		case err != nil:
			return nil, 0, fmt.Errorf("read %s: %w", e.Name(), err)
		default:
			offline = append(offline, path)
		}
	}
	return offline, online, nil
}
