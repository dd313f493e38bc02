package guest

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Reseed mixes data into the kernel's random numbers and makes the generator
// draw from the mixture at once. The host knows the data, so no entropy is
// credited for it: mixing known bytes in does no harm, believing in them would.
func (m Machine) Reseed(data []byte) error {
	if len(data) == 0 {
		return fmt.Errorf("data: is empty: %w", errdefs.ErrInvalidArgument)
	}
	f, err := os.OpenFile(filepath.Join(m.Dev, "random"), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("open random device: %w", err)
	}
	defer f.Close()
	// A write mixes without credit, unlike RNDADDENTROPY (random(4)).
	if _, err := f.Write(data); err != nil {
		return fmt.Errorf("write random device: %w", err)
	}
	if err := unix.IoctlSetInt(int(f.Fd()), unix.RNDRESEEDCRNG, 0); err != nil {
		return fmt.Errorf("reseed the generator: %w", err)
	}
	return nil
}
