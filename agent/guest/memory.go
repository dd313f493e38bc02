package guest

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// OnlineMemory brings every memory block online that is not. A block that
// refuses does not keep the others from coming up; the error names them all.
// A kernel without hot-plugged memory has nothing to do.
func (m Machine) OnlineMemory() error {
	offline, _, err := switches(filepath.Join(m.Sys, "devices/system/memory"), "memory")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range offline {
		if err := writeKnob(path, "1"); err != nil {
			errs = append(errs, fmt.Errorf("online %s: %w", filepath.Base(filepath.Dir(path)), err))
		}
	}
	return errors.Join(errs...)
}

// OnlineBlock brings one memory block online, by its name in sysfs. One that is on
// line already is fine.
func (m Machine) OnlineBlock(block string) error {
	number, ok := strings.CutPrefix(block, "memory")
	if _, err := strconv.ParseUint(number, 10, 32); !ok || err != nil {
		return fmt.Errorf("memory block %.40q: %w", block, errdefs.ErrInvalidArgument)
	}
	path := filepath.Join(m.Sys, "devices/system/memory", block, "online")
	if state, err := readWord(path); err != nil || state == "1" {
		return err
	}
	if err := writeKnob(path, "1"); err != nil {
		return fmt.Errorf("online %s: %w", block, err)
	}
	return nil
}

// TakeBlock is OnlineBlock for a block that just appeared, when nobody waits for
// the outcome.
func (m Machine) TakeBlock(block string) {
	if err := m.OnlineBlock(block); err != nil {
		slog.Warn("memory stays offline", "block", block, "error", err)
		return
	}
	slog.Info("memory was plugged in", "block", block)
}
