package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
