package boot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"
)

// The kernel's names of the random number device that the host provides.
const (
	hwrngDir    = "/sys/class/misc/hw_random"
	hwrngDevice = "/dev/hwrng"
)

// Bounds of what is taken from the host: as much as the kernel's own seed, and
// no waiting for a host that does not deliver.
const (
	hostSeed     = 64
	hostSeedTime = 200 * time.Millisecond
)

// entropy uses the host's random numbers without believing in them. The kernel
// would count what virtio-rng brings as full entropy, and a host that knows the
// numbers then knows the first keys. So the device's quality becomes zero, and
// what it brings is stirred in and counted for nothing; the processor's own
// instruction, which the host cannot read, is what fills the pool.
//
// The interface is described in Documentation/admin-guide/hw_random.rst.
func (b bootstrap) entropy(ctx context.Context) error {
	name, err := os.ReadFile(b.path(hwrngDir + "/rng_current"))
	device := strings.TrimSpace(string(name))
	if errors.Is(err, os.ErrNotExist) || err == nil && (device == "" || device == "none") {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at the random number device: %w", err)
	}
	err = writeKnob(b.path(hwrngDir+"/rng_quality"), "0\n") // one byte alone is refused
	if err != nil && !errors.Is(err, os.ErrNotExist) {      // older kernels leave the credit to their command line
		return fmt.Errorf("take credit from the random number device: %w", err)
	}
	n := b.stirHostSeed()
	slog.InfoContext(ctx, "host entropy is mixed in without credit", "device", device, "bytes", n)
	return nil
}

// stirHostSeed writes to the pool what the device has at hand, which credits
// nothing, and returns the number of bytes. Without any the guest is no worse off.
func (b bootstrap) stirHostSeed() int {
	seed := make(chan []byte, 1)
	go func() { // ends with the first answer of the device, or with the guest
		source, err := os.Open(b.path(hwrngDevice))
		if err != nil {
			seed <- nil
			return
		}
		defer source.Close()
		buf := make([]byte, hostSeed)
		n, _ := source.Read(buf)
		seed <- buf[:n]
	}()
	select {
	case s := <-seed:
		if err := os.WriteFile(b.path("/dev/urandom"), s, 0); err != nil {
			return 0
		}
		return len(s)
	case <-time.After(hostSeedTime):
		return 0
	}
}
