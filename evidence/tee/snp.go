package tee

import "github.com/coffer-cc/coffer/evidence"

// snp is AMD SEV-SNP. The kernel makes the platform device by itself, so it
// shows the platform also where no driver is bound to it.
func (h host) snp() Driver {
	return Driver{
		Kind:  evidence.SNP,
		Signs: "/dev/sev-guest, /sys/devices/platform/sev-guest, report provider sev_guest",
		Present: func() bool {
			return h.exists("dev/sev-guest", "sys/devices/platform/sev-guest") || h.reporter("sev_guest")
		},
		Open: func() (evidence.Collector, error) { return pending(evidence.SNP), nil },
	}
}
