package doctor

import (
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ownClocks are clock sources that the host cannot steer at will, or that are
// made for guests. Others exit to the hypervisor for each reading.
func ownClocks() []string {
	return []string{"tsc", "kvm-clock", "arch_sys_counter", "tod", "timebase", "hyperv_clocksource_tsc_page"}
}

func (g Guest) clock() Finding {
	now := g.Now().UTC()
	if now.Before(g.Built) {
		return bad("certificates will not verify: give the guest KVM's clock (CONFIG_PTP_1588_CLOCK_KVM), or set clock_floor",
			"%s is before this agent was built, %s", now.Format(time.RFC3339), g.Built.UTC().Format(time.DateOnly))
	}
	source, err := g.read("/sys/devices/system/clocksource/clocksource0/current_clocksource")
	if err != nil {
		return warn("look whether /sys is mounted", "%s; the clock source cannot be read", now.Format(time.RFC3339))
	}
	if !slices.Contains(ownClocks(), source) {
		return warn("give the guest an invariant TSC or KVM's clock", "%s by clock source %.32s, which is slow and the host's", now.Format(time.RFC3339), source)
	}
	return good("%s by clock source %s", now.Format(time.RFC3339), source)
}

func (g Guest) entropy() Finding {
	if !g.Random() {
		return bad("give the guest RDRAND, or wait: keys are not made before", "random numbers are not ready")
	}
	device, err := g.read("/sys/class/misc/hw_random/rng_current")
	if err != nil || device == "" || device == "none" {
		return good("ready, by the processor and the kernel")
	}
	quality, err := g.read("/sys/class/misc/hw_random/rng_quality")
	if err == nil && quality != "0" && strings.HasPrefix(device, "virtio") {
		return warn("boot with the agent as init, or write 0 to /sys/class/misc/hw_random/rng_quality",
			"ready, but the kernel credits what the host's %.32s brings", device)
	}
	return good("ready; %.32s is mixed in", device)
}

func randomReady() bool {
	var b [1]byte
	n, err := unix.Getrandom(b[:], unix.GRND_NONBLOCK)
	return err == nil && n == 1
}
